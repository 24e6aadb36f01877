"""The callers that `soak --hostile` puts beside well-behaved ones: hostile ones, and in turns as many harmless ones.

    python -m benchmarks.soak_attacks ADDRESS METRICS BEGAN_S SEGMENT_S SECONDS

Segments of SEGMENT_S follow each other from BEGAN_S, by `time.monotonic`, which is one clock for all processes; in
every third of them, from the first on, the callers are harmless. Ends by itself after SECONDS, and says as one JSON
object how its calls have ended, by kind and status.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ousel.v1 import (
    event_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    privacy_service_pb2,
    privacy_service_pb2_grpc,
    recommender_service_pb2,
    recommender_service_pb2_grpc,
    state_service_pb2,
    state_service_pb2_grpc,
)

from benchmarks.shop_log import item_id, user_id

PER_S = {  # calls of each kind
    "silent_stream": 5, "half_call": 5, "export": 10, "digest": 4, "snapshot": 1, "status": 10, "watch": 1, "wide": 3,
    "waiting": 20, "invalid": 10, "idle_socket": 2,
}  # fmt: skip
_BURST, _BURST_EACH_S = 500, 20.0
_SLOW_PUSH_BYTE_S = 5.0
_GIVE_UP_S = 20.0  # by those who wait without end otherwise
USERS = 4000


def harmless(now_s: float, began_s: float, segment_s: float) -> bool:
    """Whether a moment lies in a segment of harmless callers."""
    return int((now_s - began_s) / segment_s) % 3 == 0


class Attacks:
    """One method per kind of call."""

    def __init__(self, channel: grpc.aio.Channel, address: str, metrics: str) -> None:
        self._channel, self._address, self._metrics = channel, address, metrics
        self._recommender = recommender_service_pb2_grpc.RecommenderServiceStub(channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(channel)
        self._privacy = privacy_service_pb2_grpc.PrivacyServiceStub(channel)
        self._state = state_service_pb2_grpc.StateServiceStub(channel)
        self._draw = np.random.default_rng(11)

    def user(self) -> str:
        return user_id(int(self._draw.integers(USERS)))

    async def plain(self) -> None:
        await self._recommend(recommender_service_pb2.Query(user_id=self.user(), k=10))

    async def wide(self) -> None:
        left_out = [item_id(int(item)) for item in self._draw.integers(0, 5000, 1000)]
        options = recommender_service_pb2.QueryOptions(exclude_item_ids=left_out, exclude_history=True)
        await self._recommend(recommender_service_pb2.Query(user_id=self.user(), k=1000, options=options))

    async def invalid(self) -> None:
        await self._recommend(recommender_service_pb2.Query(user_id=self.user(), k=-1))

    async def waiting(self) -> None:
        after = event_pb2.LogPosition(topic="ousel.events", partition=0, offset=2**40)
        query = recommender_service_pb2.Query(user_id=self.user(), k=10)
        await self._recommender.Recommend(
            recommender_service_pb2.RecommendRequest(query=query, after=after), timeout=_GIVE_UP_S
        )

    async def silent_stream(self) -> None:
        await self._recommender.StreamRecommendations(timeout=_GIVE_UP_S).read()

    async def half_call(self) -> None:
        call = self._channel.stream_unary("/ousel.v1.EventService/Track", None, None)
        await call(_nothing(), timeout=_GIVE_UP_S)

    async def export(self) -> None:
        request = privacy_service_pb2.ExportUserRequest(user_id=self.user())
        await self._privacy.ExportUser(request, timeout=_GIVE_UP_S)

    async def digest(self) -> None:
        await self._state.GetDigest(state_service_pb2.GetDigestRequest(), timeout=_GIVE_UP_S)

    async def snapshot(self) -> None:
        await self._state.TakeSnapshot(state_service_pb2.TakeSnapshotRequest(), timeout=_GIVE_UP_S)

    async def status(self) -> None:
        await self._model.GetStatus(model_service_pb2.GetStatusRequest(), timeout=_GIVE_UP_S)

    async def watch(self) -> None:
        watching = health_pb2_grpc.HealthStub(self._channel).Watch(health_pb2.HealthCheckRequest(), timeout=_GIVE_UP_S)
        while await watching.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            pass

    async def idle_socket(self) -> None:
        for address in (self._address, self._metrics):
            host, _, port = address.rpartition(":")
            with suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"G")
                await asyncio.sleep(_GIVE_UP_S)
                writer.close()

    async def slow_push(self) -> None:
        """Announces a large model and sends a byte now and then."""
        header = model_service_pb2.WeightsHeader(version=10**6, size_bytes=2**30, sha256=bytes(32))
        call = self._model.PushWeights()
        await call.write(model_service_pb2.PushWeightsRequest(header=header))
        while not call.done():
            await call.write(model_service_pb2.PushWeightsRequest(chunk=b"x"))
            await asyncio.sleep(_SLOW_PUSH_BYTE_S)
        await call

    async def _recommend(self, query: recommender_service_pb2.Query) -> None:
        request = recommender_service_pb2.RecommendRequest(query=query)
        await self._recommender.Recommend(request, timeout=_GIVE_UP_S)


async def _nothing() -> AsyncIterator[bytes]:
    """A request of which nothing comes."""
    await asyncio.sleep(_GIVE_UP_S)
    yield b""


async def _run(address: str, metrics: str, began_s: float, segment_s: float, seconds: float) -> Counter[str]:
    ended: Counter[str] = Counter()
    running: set[asyncio.Task[None]] = set()

    async def counted(kind: str, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await call()
            ended[f"{kind} OK"] += 1
        except grpc.aio.AioRpcError as error:
            ended[f"{kind} {error.code().name}"] += 1
        except (asyncio.InvalidStateError, OSError) as error:
            ended[f"{kind} {type(error).__name__}"] += 1

    def start(kind: str, call: Callable[[], Awaitable[Any]]) -> asyncio.Task[None]:
        task = asyncio.create_task(counted(kind, call))
        running.add(task)
        task.add_done_callback(running.discard)
        return task

    async with grpc.aio.insecure_channel(address) as channel:
        attacks = Attacks(channel, address, metrics)
        owed = dict.fromkeys(PER_S, 0.0)
        next_burst_s, last_s, push = began_s + _BURST_EACH_S, time.monotonic(), None
        while (now_s := time.monotonic()) < began_s + seconds:
            calm = harmless(now_s, began_s, segment_s)
            for kind, per_s in PER_S.items():
                owed[kind] += per_s * (now_s - last_s)
                while owed[kind] >= 1:
                    owed[kind] -= 1
                    start("harmless", attacks.plain) if calm else start(kind, getattr(attacks, kind))
            if now_s >= next_burst_s:
                next_burst_s += _BURST_EACH_S
                for _ in range(_BURST):
                    start("burst", attacks.plain)
            if not calm and (push is None or push.done()):
                push = start("slow_push", attacks.slow_push)
            last_s = now_s
            await asyncio.sleep(0.05)
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return ended


if __name__ == "__main__":
    address, metrics, *numbers = sys.argv[1:]
    print(json.dumps(asyncio.run(_run(address, metrics, *map(float, numbers)))), flush=True)
