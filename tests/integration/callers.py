"""A stock gRPC client in a process of its own, whose calls wait for a record that does not come.

    python -m tests.integration.callers ADDRESS CALLS CHANNELS TOPIC PARTITION OFFSET

It prints the number of calls that have ended by status code, as JSON, once it has been told so by a line on its input.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import grpc
from ousel.v1 import event_pb2, recommender_service_pb2, recommender_service_pb2_grpc

_DEADLINE_S = 60.0
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


def main(address: str, calls: str, channels: str, topic: str, partition: str, offset: str) -> None:
    opened = [grpc.insecure_channel(address, options=_OPTIONS) for _ in range(int(channels))]
    stubs = [recommender_service_pb2_grpc.RecommenderServiceStub(channel).Recommend for channel in opened]
    request = recommender_service_pb2.RecommendRequest(
        query=recommender_service_pb2.Query(user_id="u1", k=5),
        after=event_pb2.LogPosition(topic=topic, partition=int(partition), offset=int(offset)),
    )
    started = [stubs[number % len(stubs)].future(request) for number in range(int(calls))]
    print("started", flush=True)
    sys.stdin.readline()
    print(json.dumps(Counter(call.code().name if call.done() else "WAITING" for call in started)), flush=True)
    for call in started:
        call.cancel()


if __name__ == "__main__":
    main(*sys.argv[1:])
