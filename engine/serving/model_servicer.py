"""ModelService: receives new weights whole and intact, hands them to the engine, and shows how it is doing."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

from ousel.v1 import event_pb2, model_service_pb2, model_service_pb2_grpc

from engine import metrics
from engine.config import Config
from engine.serving.calls import CallObserver
from engine.serving.engine import Engine
from engine.serving.errors import InvalidRequest, PushInProgress
from engine.serving.requests import check_header, read_request
from engine.serving.subscriptions import Subscriptions

_CHUNK_WAIT_S = 30.0  # a push that is silent for longer gives its place free


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Takes one push at a time."""

    def __init__(self, config: Config, engine: Engine, subscriptions: Subscriptions, calls: CallObserver) -> None:
        self._config = config
        self._engine = engine
        self._subscriptions = subscriptions
        self._calls = calls
        self._pushing = asyncio.Lock()

    async def PushWeights(self, _: Any, context: Any) -> model_service_pb2.PushWeightsResponse:
        """Answers once the new model serves; until then, and on any error, the old one does."""
        if self._pushing.locked():
            raise PushInProgress("another push is being received or installed, try again later")
        await self._pushing.acquire()
        # Its own task: once the weights are here, the swap goes on and keeps the lock even if the caller leaves.
        swap: asyncio.Task[float] | None = None
        try:
            try:
                header, buffer = await self._receive(context)
            except TimeoutError:
                raise TimeoutError(f"the push was silent for {_CHUNK_WAIT_S:g} s") from None
            swap = asyncio.create_task(self._install(header, buffer))
            swap_s = await asyncio.shield(swap)
        finally:
            if swap is None:
                metrics.MODEL_PUSHES.labels("refused").inc()
                self._pushing.release()
        return model_service_pb2.PushWeightsResponse(version=header.version, swap_ms=swap_s * 1000)

    async def _receive(self, context: Any) -> tuple[model_service_pb2.WeightsHeader, bytearray]:
        """The announced number of bytes, no more and no fewer."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CHUNK_WAIT_S) as wait:
            message = await read_request(context)
            if message is None or message.WhichOneof("message") != "header":
                got = "nothing" if message is None else message.WhichOneof("message") or "neither header nor chunk"
                raise InvalidRequest(f"the first message must be header, got {got}")
            header = message.header
            check_header(header, self._config)
            buffer, filled = bytearray(header.size_bytes), 0
            while (message := await read_request(context)) is not None:
                wait.reschedule(loop.time() + _CHUNK_WAIT_S)
                if (got := message.WhichOneof("message")) != "chunk":
                    raise InvalidRequest(f"messages after the header must be chunk, got {got or 'neither'}")
                end = filled + len(message.chunk)
                if end > header.size_bytes:
                    raise InvalidRequest(
                        f"weights are too long: size_bytes says {header.size_bytes}, got {end} or more"
                    )
                buffer[filled:end] = message.chunk
                filled = end
        if filled < header.size_bytes:
            raise InvalidRequest(f"weights are truncated: size_bytes says {header.size_bytes}, got {filled}")
        return header, buffer

    async def _install(self, header: model_service_pb2.WeightsHeader, buffer: bytearray) -> float:
        """Checks the digest and has the engine swap; seconds since the last chunk."""
        started = time.perf_counter()
        outcome = "refused"
        try:
            data = await asyncio.to_thread(_verified, buffer, header.sha256)
            await asyncio.wrap_future(self._engine.install(data, header.version, dict(header.metrics)))
            outcome = "accepted"
            swap_s = time.perf_counter() - started
            metrics.SWAP_SECONDS.observe(swap_s)
            return swap_s
        finally:
            metrics.MODEL_PUSHES.labels(outcome).inc()
            self._pushing.release()

    async def RollBack(
        self, request: model_service_pb2.RollBackRequest, context: Any
    ) -> model_service_pb2.RollBackResponse:
        """Answers once the generation before serves again."""
        if self._pushing.locked():
            raise PushInProgress("a push is being received or installed, try again later")
        await self._pushing.acquire()
        # As with a push: it goes on, and alone, even if the caller leaves.
        return await asyncio.shield(asyncio.create_task(self._roll_back(request.expected_version or None)))

    async def _roll_back(self, expected: int | None) -> model_service_pb2.RollBackResponse:
        started = time.perf_counter()
        try:
            version = await asyncio.wrap_future(self._engine.roll_back(expected))
        finally:
            self._pushing.release()
        metrics.MODEL_ROLL_BACKS.inc()
        return model_service_pb2.RollBackResponse(version=version, swap_ms=1000 * (time.perf_counter() - started))

    async def GetStatus(
        self, request: model_service_pb2.GetStatusRequest, context: Any
    ) -> model_service_pb2.GetStatusResponse:
        """How the engine is doing."""
        status = self._engine.status()
        answer = model_service_pb2.GetStatusResponse(
            serving=status.ready,
            model_version=status.model_version,
            model_metrics=status.model_metrics,
            model_versions=status.model_versions,
            users=status.users,
            items=status.items,
            index_items=status.index_items,
            events_folded=status.events_folded,
            items_folded=status.items_folded,
            events_dead_lettered=status.events_dead_lettered,
            lag=status.lag,
            streams=self._subscriptions.count,
            failed_calls=self._calls.failed,
            reflects=[
                event_pb2.LogPosition(topic=p.topic, partition=p.partition, offset=p.offset) for p in status.reflects
            ],
            uptime_s=status.uptime_s,
            partitions=status.partitions,
            partitions_total=status.partitions_total,
            users_limit=status.users_limit,
            users_evicted=status.users_evicted,
            items_evicted=status.items_evicted,
            users_forgotten=status.users_forgotten,
            events_duplicate=status.events_duplicate,
            records_redelivered=status.records_redelivered,
            targets=status.targets,
            targets_evicted=status.targets_evicted,
        )
        if status.snapshot_time_s is not None:
            answer.snapshot_time.FromMilliseconds(round(status.snapshot_time_s * 1000))
        return answer


def _verified(buffer: bytearray, announced: bytes) -> bytes:
    got = hashlib.sha256(buffer).digest()
    if got != announced:
        raise InvalidRequest(f"sha256 must be the digest of the weights, got {announced.hex()} for {got.hex()}")
    return bytes(buffer)
