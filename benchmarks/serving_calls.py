"""The calling side of `serving` where none can be compiled: one load on one port, then what was seen of it, as JSON.

    python -m benchmarks.serving_calls PORT METHOD SECONDS CALLS_PER_S IN_FLIGHT USERS K QUERIES

With the method RecommendBatch a call has so many queries. With 0 calls per second, so many callers each call again once
answered, or a little later where refused; else calls start at random times, whether or not those before are answered,
and an answer's delay counts from the time at which its call was to start.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from typing import Any

import grpc
import uvloop
from ousel.v1 import recommender_service_pb2

ECHO = "/ousel.v1.Benchmark/Echo"
_SERVICE = "/ousel.v1.RecommenderService/"
_HINT = "grpc-retry-pushback-ms"
_WARM_S = 0.3  # what is seen at the start does not count
_BACK_OFF_S = 0.02


class Calls:
    """Calls of one method, and what became of them. Answers stay bytes: what reading them costs is no matter here."""

    def __init__(self, channel: grpc.aio.Channel, method: str, users: int, k: int, queries: int) -> None:
        self._call = channel.unary_unary(ECHO if method == "Echo" else _SERVICE + method, None, None)
        self._users, self._k = users, k
        self._queries = queries if method == "RecommendBatch" else 0
        self._draw = random.Random(0)
        self.began_s = time.perf_counter()
        self.outcomes: Counter[grpc.StatusCode] = Counter()
        self.hinted = 0
        self.delays_s: list[float] = []

    async def one(self, due_s: float) -> bool:
        """Whether there was an answer."""
        code, hinted = grpc.StatusCode.OK, False
        try:
            await self._call(self._request(), timeout=10)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            trailing: Any = error.trailing_metadata()
            hinted = _HINT in dict(trailing or ())
        now_s = time.perf_counter()
        if due_s - self.began_s >= _WARM_S:
            self.outcomes[code] += 1
            self.hinted += hinted
            if code is grpc.StatusCode.OK:
                self.delays_s.append(now_s - due_s)
        return code is grpc.StatusCode.OK

    def _request(self) -> bytes:
        queries = [
            recommender_service_pb2.Query(user_id=f"user-{self._draw.randrange(self._users)}", k=self._k)
            for _ in range(self._queries or 1)
        ]
        if self._queries:
            return recommender_service_pb2.RecommendBatchRequest(queries=queries).SerializeToString()
        return recommender_service_pb2.RecommendRequest(query=queries[0]).SerializeToString()

    async def in_turn(self, callers: int, seconds: float) -> None:
        async def caller() -> None:
            while (now_s := time.perf_counter()) < self.began_s + seconds:
                if not await self.one(now_s):
                    await asyncio.sleep(_BACK_OFF_S)

        await asyncio.gather(*(caller() for _ in range(callers)))

    async def at_random(self, per_s: float, seconds: float) -> None:
        due_s, started = self.began_s, set()
        while (due_s := due_s + self._draw.expovariate(per_s)) < self.began_s + seconds:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            call = asyncio.create_task(self.one(due_s))
            started.add(call)
            call.add_done_callback(started.discard)
        await asyncio.gather(*started)


async def _run(
    port: int, method: str, seconds: float, per_s: float, in_flight: int, users: int, k: int, queries: int
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        calls = Calls(channel, method, users, k, queries)
        if per_s:
            await calls.at_random(per_s, seconds)
        else:
            await calls.in_turn(in_flight, seconds)
    took_s = time.perf_counter() - calls.began_s - _WARM_S
    seen = {
        "seconds": took_s,
        "answered": calls.outcomes[grpc.StatusCode.OK],
        "refused": calls.outcomes[grpc.StatusCode.RESOURCE_EXHAUSTED],
        "refused_with_hint": calls.hinted,
        "delays_ms": [round(delay_s * 1000, 3) for delay_s in calls.delays_s],
    }
    other = (
        calls.outcomes.total() - calls.outcomes[grpc.StatusCode.OK] - calls.outcomes[grpc.StatusCode.RESOURCE_EXHAUSTED]
    )
    if other:
        raise SystemExit(f"{other} calls failed: {dict(calls.outcomes)}")
    print(json.dumps(seen))


if __name__ == "__main__":
    port, method, seconds, per_s, *whole = sys.argv[1:]
    uvloop.run(_run(int(port), method, float(seconds), float(per_s), *map(int, whole)))
