"""ModelService: receives new weights whole and intact, hands them to the registry, and shows how all of it is doing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ousel.v1 import event_pb2, model_service_pb2, model_service_pb2_grpc

from engine import metrics
from engine.config import Config
from engine.failures import told
from engine.ranking.query import Position
from engine.registry.ledger import Ledger
from engine.registry.models import Models
from engine.registry.registry import Push
from engine.security.caller import current_caller
from engine.security.roles import STATUS_FIELDS
from engine.serving import model_messages
from engine.serving.calls import CallObserver
from engine.serving.engine import Engine
from engine.serving.errors import NoRegistry, PushInProgress
from engine.serving.requests import check_header
from engine.serving.subscriptions import Subscriptions
from engine.serving.upload import Blocks, Reception, read_header

R = TypeVar("R")

_log = logging.getLogger(__name__)

_BUSY = "another push is being received or stored, try again later"
_MAX_HEADERLESS = 16  # pushes that may be open and have sent no header yet


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Takes one push at a time. What changes the registry goes on, and alone, even if its caller leaves.

    Args:
        models: the registry; None answers everything about it with FAILED_PRECONDITION.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        subscriptions: Subscriptions,
        calls: CallObserver,
        models: Models | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._subscriptions = subscriptions
        self._calls = calls
        self._models = models
        self._headerless = 0
        self._receiving = Reception(config.model)
        self._pushing = asyncio.Lock()
        for outcome in ("accepted", "refused"):
            metrics.MODEL_PUSHES.labels(outcome)  # or Prometheus would not see that the first one has raised it

    async def PushWeights(self, _: Any, context: Any) -> model_service_pb2.PushWeightsResponse:
        """Answers once the model is stored and announced; each engine builds it in its own time."""
        models = self._registry()
        if (self._pushing.locked() and not self._receiving.slow) or self._headerless >= _MAX_HEADERLESS:
            raise PushInProgress(_BUSY)
        # Its own task: once the weights are here, it goes on and keeps its place even if the caller leaves.
        storing: asyncio.Task[model_service_pb2.PushWeightsResponse] | None = None
        held = False
        try:
            header = await self._header(context, models)
            if self._pushing.locked() and not self._receiving.give_way():
                raise PushInProgress(_BUSY)
            held = await self._pushing.acquire()
            self._receiving = Reception(self._config.model)
            blocks = await self._receiving.read(context, header.size_bytes)
            storing = asyncio.create_task(self._store(models, header, blocks, header.pushed_by or context.peer()))
            return await _to_its_end(storing)
        finally:
            if storing is None:
                metrics.MODEL_PUSHES.labels("refused").inc()
                if held:
                    self._pushing.release()

    async def _header(self, context: Any, models: Models) -> model_service_pb2.WeightsHeader:
        """Takes no place yet: a push that never says what it brings must not keep others from theirs."""
        self._headerless += 1
        try:
            header = await read_header(context, self._config.model)
        finally:
            self._headerless -= 1
        check_header(header, self._config, models.newest)
        models.check_version(header.version)
        return header

    async def _store(
        self, models: Models, header: model_service_pb2.WeightsHeader, blocks: Blocks, pushed_by: str
    ) -> model_service_pb2.PushWeightsResponse:
        """Checks the digest and has the registry take the model."""
        started_s = time.perf_counter()
        outcome = "refused"
        try:
            data = await asyncio.to_thread(blocks.verified, header.sha256)
            trained_on = tuple(Position(at.topic, at.partition, at.offset) for at in header.trained_on)
            push = Push(data, header.version, header.sha256.hex(), dict(header.metrics), trained_on, pushed_by)
            ledger: Ledger = await asyncio.to_thread(models.accept, push)
            outcome = "accepted"
        finally:
            metrics.MODEL_PUSHES.labels(outcome).inc()
            self._pushing.release()
        return model_service_pb2.PushWeightsResponse(
            version=header.version,
            swap_ms=1000 * (time.perf_counter() - started_s),
            announced=True,
            pinned_version=ledger.pinned or 0,
        )

    async def RollBack(
        self, request: model_service_pb2.RollBackRequest, context: Any
    ) -> model_service_pb2.RollBackResponse:
        """Answers once all engines are told, and where that takes next to nothing once this one has followed."""
        started_s, models = time.perf_counter(), self._registry()
        back = await _in_a_thread(models.roll_back, request.expected_version or None, context.peer())
        metrics.MODEL_ROLL_BACKS.inc()
        return model_service_pb2.RollBackResponse(
            version=back.version, swap_ms=1000 * (time.perf_counter() - started_s), serving=back.serving
        )

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Any
    ) -> model_service_pb2.ListModelsResponse:
        """The models of the registry, and what this engine makes of them."""
        return model_messages.model_list(self._registry().listed(), ready=self._engine.status().ready)

    async def PinModel(
        self, request: model_service_pb2.PinModelRequest, context: Any
    ) -> model_service_pb2.PinModelResponse:
        """Answers once all engines are told."""
        await _in_a_thread(self._registry().pin, request.version, context.peer())
        return model_service_pb2.PinModelResponse(version=request.version)

    async def UnpinModel(
        self, request: model_service_pb2.UnpinModelRequest, context: Any
    ) -> model_service_pb2.UnpinModelResponse:
        """Answers once all engines are told."""
        ledger = await _in_a_thread(self._registry().pin, None, context.peer())
        serving = ledger.serving
        return model_service_pb2.UnpinModelResponse(version=serving.model.version if serving else 0)

    async def PruneModels(
        self, request: model_service_pb2.PruneModelsRequest, context: Any
    ) -> model_service_pb2.PruneModelsResponse:
        """Answers once the models are deleted."""
        versions = await _in_a_thread(self._registry().prune, request.keep or None)
        return model_service_pb2.PruneModelsResponse(versions=versions)

    def _registry(self) -> Models:
        if self._models is None:
            raise NoRegistry("this engine has no registry of models")
        return self._models

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
        if self._models is not None:
            model_messages.add_standing(answer, self._models.standing())
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


async def _in_a_thread(change: Callable[..., R], *arguments: Any) -> R:
    """Runs a change of the registry in a thread; it goes on where the caller leaves."""
    return await _to_its_end(asyncio.create_task(asyncio.to_thread(change, *arguments)))


async def _to_its_end(task: asyncio.Task[R]) -> R:
    """Waits for a task that goes on where the caller leaves; the log then says what the caller does not hear."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_log_failure)
        raise


def _log_failure(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.warning("what a caller that has left has asked for failed: %s", told(error))
