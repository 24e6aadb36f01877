"""ModelService: receives new weights whole and intact, hands them to the engine, and shows how it is doing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ousel.v1 import event_pb2, model_service_pb2, model_service_pb2_grpc

from engine import metrics
from engine.config import Config
from engine.security.caller import current_caller
from engine.security.roles import STATUS_FIELDS
from engine.serving.calls import CallObserver
from engine.serving.engine import Engine
from engine.serving.errors import PushInProgress
from engine.serving.requests import check_header
from engine.serving.subscriptions import Subscriptions
from engine.serving.upload import Blocks, Reception, read_header

_BUSY = "another push is being received or installed, try again later"
_MAX_HEADERLESS = 16  # pushes that may be open and have sent no header yet


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Takes one push at a time, and one swap at a time. A roll back is a swap, and waits for no push to be received."""

    def __init__(self, config: Config, engine: Engine, subscriptions: Subscriptions, calls: CallObserver) -> None:
        self._config = config
        self._engine = engine
        self._subscriptions = subscriptions
        self._calls = calls
        self._headerless = 0
        self._receiving = Reception(config.model)
        self._pushing = asyncio.Lock()
        self._swapping = asyncio.Lock()
        for outcome in ("accepted", "refused"):
            metrics.MODEL_PUSHES.labels(outcome)  # or Prometheus would not see that the first one has raised it

    async def PushWeights(self, _: Any, context: Any) -> model_service_pb2.PushWeightsResponse:
        """Answers once the new model serves; until then, and on any error, the old one does."""
        if (self._pushing.locked() and not self._receiving.slow) or self._headerless >= _MAX_HEADERLESS:
            raise PushInProgress(_BUSY)
        # Its own task: once the weights are here, the swap goes on and keeps its place even if the caller leaves.
        swap: asyncio.Task[float] | None = None
        held = False
        try:
            header = await self._header(context)
            if self._pushing.locked() and not self._receiving.give_way():
                raise PushInProgress(_BUSY)
            held = await self._pushing.acquire()
            self._receiving = Reception(self._config.model)
            blocks = await self._receiving.read(context, header.size_bytes)
            swap = asyncio.create_task(self._install(header, blocks))
            swap_s = await asyncio.shield(swap)
        finally:
            if swap is None:
                metrics.MODEL_PUSHES.labels("refused").inc()
                if held:
                    self._pushing.release()
        return model_service_pb2.PushWeightsResponse(version=header.version, swap_ms=swap_s * 1000)

    async def _header(self, context: Any) -> model_service_pb2.WeightsHeader:
        """Takes no place yet: a push that never says what it brings must not keep others from theirs."""
        self._headerless += 1
        try:
            header = await read_header(context, self._config.model)
        finally:
            self._headerless -= 1
        check_header(header, self._config, max(self._engine.status().model_versions, default=0))
        return header

    async def _install(self, header: model_service_pb2.WeightsHeader, blocks: Blocks) -> float:
        """Checks the digest and has the engine swap; seconds since the last chunk."""
        started = time.perf_counter()
        outcome = "refused"
        try:
            data = await asyncio.to_thread(blocks.verified, header.sha256)
            async with self._swapping:
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
        if self._swapping.locked():
            raise PushInProgress("a pushed model is being installed, or another roll back runs, try again later")
        await self._swapping.acquire()
        # As with a push: it goes on, and alone, even if the caller leaves.
        return await asyncio.shield(asyncio.create_task(self._roll_back(request.expected_version or None)))

    async def _roll_back(self, expected: int | None) -> model_service_pb2.RollBackResponse:
        started = time.perf_counter()
        try:
            version = await asyncio.wrap_future(self._engine.roll_back(expected))
        finally:
            self._swapping.release()
        metrics.MODEL_ROLL_BACKS.inc()
        return model_service_pb2.RollBackResponse(version=version, swap_ms=1000 * (time.perf_counter() - started))

    async def GetStatus(
        self, request: model_service_pb2.GetStatusRequest, context: Any
    ) -> model_service_pb2.GetStatusResponse:
        """How the engine is doing, as far as the caller's roles show it."""
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
        return _as_far_as_shown(answer)


def _as_far_as_shown(answer: model_service_pb2.GetStatusResponse) -> model_service_pb2.GetStatusResponse:
    """The answer without the fields that no role of the caller shows; changes and returns it."""
    views = [fields for role, fields in STATUS_FIELDS.items() if current_caller().has(role)]
    if None not in views:
        shown = frozenset().union(*filter(None, views))
        for field, _ in answer.ListFields():
            if field.name not in shown:
                answer.ClearField(field.name)
    return answer
