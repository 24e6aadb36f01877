"""Streams of `freshness`: opens one for each watched user, and notes when each list came and what it reflects.

    python -m benchmarks.freshness_watch ADDRESS USERS

Says "open" on its standard output once every stream has had a list. After a line on its standard input it prints what
came, as JSON: [time by `time.monotonic`, user, {partition: offset}] of each list, in the order in which they came.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop
from ousel.v1 import recommender_service_pb2

from benchmarks.freshness_load import K
from benchmarks.shop_log import user_id

_METHOD = "/ousel.v1.RecommenderService/StreamRecommendations"


class Watched:
    """What came on all streams; lists stay bytes until the end, so that reading them takes time from nobody."""

    def __init__(self) -> None:
        self.lists: list[tuple[float, int, bytes]] = []

    async def follow(self, channel: grpc.aio.Channel, user: int, opened: asyncio.Event) -> None:
        query = recommender_service_pb2.Query(user_id=user_id(user), k=K)
        subscribe = recommender_service_pb2.StreamRecommendationsRequest(subscribe=query).SerializeToString()

        async def requests() -> AsyncIterator[bytes]:
            yield subscribe
            await asyncio.Event().wait()  # the stream stays open

        async for message in channel.stream_stream(_METHOD, None, None)(requests()):
            self.lists.append((time.monotonic(), user, message))
            opened.set()
        raise RuntimeError(f"the stream of {user_id(user)} ended")

    def reflected(self) -> list[tuple[float, int, dict[int, int]]]:
        read = recommender_service_pb2.StreamRecommendationsResponse.FromString
        return [
            (at_s, user, {position.partition: position.offset for position in read(message).list.reflects})
            for at_s, user, message in self.lists
        ]


async def _run(address: str, users: int) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        watched, opened = Watched(), [asyncio.Event() for _ in range(users)]
        streams: list[asyncio.Task[Any]] = [
            asyncio.create_task(watched.follow(channel, user, opened[user])) for user in range(users)
        ]
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        await _first([asyncio.create_task(_all(opened)), *streams])
        print("open", flush=True)
        await _first([ended, *streams])
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    print(json.dumps(watched.reflected()), flush=True)


async def _all(events: list[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


async def _first(tasks: list[asyncio.Task[Any]]) -> None:
    """Waits for the first; the others are streams, which only end in error."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], int(sys.argv[2])))
