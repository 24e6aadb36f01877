"""The floor of `freshness`: an engine that only echoes.

    python -m benchmarks.freshness_echo USERS

It reads the same topic in the same way and serves the same streams from the same kind of server as the engine; for each
batch of records it sends one list, made beforehand, to each watched user who is in it, with the positions that it
reflects. Its settings come as the engine's do; its standard output says at which port it listens, and that it follows.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import grpc
import uvloop
from ousel.v1 import event_pb2, recommender_service_pb2, recommender_service_pb2_grpc

from benchmarks.freshness_load import K
from benchmarks.shop_log import user_id
from engine import collector
from engine.config import KafkaConfig, load_config
from engine.events.kafka import KafkaSource
from engine.events.process import ProcessSource
from engine.log_output import log_to_stderr

_POLL_S = 0.2


class Echo(recommender_service_pb2_grpc.RecommenderServiceServicer):
    """Streams of users, each with a slot for the newest positions that it has not sent."""

    def __init__(self, topic: str, users: int) -> None:
        self._topic = topic
        self._subjects = {user_id(user).encode(): user_id(user) for user in range(users)}
        self._slots: dict[str, Mapping[int, int]] = {}
        self._changed = {subject: asyncio.Event() for subject in self._subjects.values()}
        self._list = recommender_service_pb2.RecommendationList(model_version=1, known=True)
        for number in range(K):
            self._list.items.add(item_id=f"item-{number}", title=f"Title of item-{number}", score=1.0, sources=[1, 3])

    async def StreamRecommendations(self, _: Any, context: Any) -> None:
        subject = (await context.read()).subscribe.user_id
        await context.write(self._message({}))
        while True:
            changed = self._changed[subject]
            await changed.wait()
            changed.clear()
            await context.write(self._message(self._slots[subject]))

    def concern(self, found: Mapping[str, Mapping[int, int]]) -> None:
        """In the event loop: these users have new records, up to these offsets."""
        self._slots.update(found)
        for subject in found:
            self._changed[subject].set()

    def follow(self, kafka: KafkaConfig, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        """The thread: reads the topic from its end on, as the engine's thread does."""
        with closing(ProcessSource(partial(KafkaSource, kafka), kafka.queue_batches, kafka.max_poll_records)) as source:
            while (assignment := source.assignment()) is None:
                source.poll(_POLL_S)
            source.start({partition: held.end for partition, held in assignment.partitions.items()})
            print("following", flush=True)
            offsets: dict[int, int] = {}
            while not stop.is_set():
                concerned = set()
                for record in source.poll(_POLL_S):
                    if record.topic == self._topic:
                        offsets[record.partition] = record.offset
                        concerned.add(self._subjects.get(record.key or b""))
                concerned.discard(None)
                if concerned:
                    reflects = dict(offsets)
                    loop.call_soon_threadsafe(self.concern, {one: reflects for one in concerned if one is not None})

    def _message(self, reflects: Mapping[int, int]) -> recommender_service_pb2.StreamRecommendationsResponse:
        message = recommender_service_pb2.StreamRecommendationsResponse(list=self._list, cause="CAUSE_EVENTS")
        for partition, offset in reflects.items():
            message.list.reflects.append(event_pb2.LogPosition(topic=self._topic, partition=partition, offset=offset))
        return message


async def _serve(users: int) -> None:
    config = load_config(None)
    echo, stop, loop = Echo(config.kafka.events_topic, users), threading.Event(), asyncio.get_running_loop()
    server = grpc.aio.server()
    recommender_service_pb2_grpc.add_RecommenderServiceServicer_to_server(echo, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listens at 127.0.0.1:{port}", flush=True)
    follower = threading.Thread(target=echo.follow, args=(config.kafka, loop, stop), daemon=True)
    follower.start()
    await asyncio.to_thread(sys.stdin.readline)
    stop.set()
    await asyncio.to_thread(follower.join)
    await server.stop(0)


if __name__ == "__main__":
    log_to_stderr("warning")
    sys.setswitchinterval(0.00002)  # as in the engine
    collector.set_aside()
    uvloop.run(_serve(int(sys.argv[1])))
