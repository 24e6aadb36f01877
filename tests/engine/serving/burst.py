"""A stock gRPC client in a process of its own, that starts many calls at once and says how each of them ended.

    python -m tests.engine.serving.burst ADDRESS METHOD CALLS CHANNELS

METHOD is Recommend or Track. The last line is JSON: the number of calls by status code, and of these with a hint.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

import grpc
from ousel.v1 import (
    event_pb2,
    event_service_pb2,
    event_service_pb2_grpc,
    recommender_service_pb2,
    recommender_service_pb2_grpc,
)

_DEADLINE_S = 120.0
# Without a pool of its own each channel would share one connection, and without retries each call is counted once.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


@dataclass(frozen=True)
class Burst:
    """How the calls of a burst ended: their number by code, and how many by code had a hint when to come back."""

    codes: dict[str, int]
    hinted: dict[str, int]


def burst(address: str, method: str, calls: int, channels: int) -> Burst:
    """Runs this module in another process."""
    command = [sys.executable, "-m", "tests.engine.serving.burst", address, method, str(calls), str(channels)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=2 * _DEADLINE_S)
    return Burst(**json.loads(ended.stdout.splitlines()[-1]))


def main(address: str, method: str, calls: str, channels: str) -> None:
    opened = [grpc.insecure_channel(address, options=_OPTIONS) for _ in range(int(channels))]
    for channel in opened:
        grpc.channel_ready_future(channel).result(_DEADLINE_S)
    if method == "Track":
        stubs = [event_service_pb2_grpc.EventServiceStub(channel).Track for channel in opened]
        request = event_service_pb2.TrackRequest(event=event_pb2.Event(user_id="u1", item_id="i1", kind="view"))
    else:
        stubs = [recommender_service_pb2_grpc.RecommenderServiceStub(channel).Recommend for channel in opened]
        request = recommender_service_pb2.RecommendRequest(query=recommender_service_pb2.Query(user_id="u1", k=5))
    started = [stubs[number % len(stubs)].future(request, timeout=_DEADLINE_S) for number in range(int(calls))]
    codes: Counter[str] = Counter()
    hinted: Counter[str] = Counter()
    for call in started:
        code = call.code().name
        codes[code] += 1
        hinted[code] += any(key == "grpc-retry-pushback-ms" for key, _ in call.trailing_metadata() or ())
    print(json.dumps({"codes": codes, "hinted": hinted}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
