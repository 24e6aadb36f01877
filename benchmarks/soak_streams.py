"""Streams of `soak`: opens some, takes what comes, and closes them in order once a line is read.

    python -m benchmarks.soak_streams ADDRESS FIRST COUNT

Says "open" once every stream has had a list. Killed, it leaves all of them without a word.
"""

from __future__ import annotations

import asyncio
import sys

import ousel
import uvloop

from benchmarks.freshness_load import K
from benchmarks.shop_log import user_id


async def _follow(client: ousel.AsyncClient, user: int, opened: asyncio.Event) -> None:
    async with client.stream(user_id(user), k=K) as updates:
        async for _ in updates:
            opened.set()


async def _run(address: str, first: int, count: int) -> None:
    async with ousel.AsyncClient(address) as client:
        opened = [asyncio.Event() for _ in range(count)]
        streams = [asyncio.create_task(_follow(client, first + at, opened[at])) for at in range(count)]
        for one in opened:
            await one.wait()
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
