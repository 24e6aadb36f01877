"""`convert` for what is about models."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC

from ousel.arguments import UINT32_FROM_1, UINT64_FROM_1, whole
from ousel.model_types import ModelBuild, ModelList, ModelOrigin, ModelState, RefusedModel, RegisteredModel, RolledBack
from ousel.types import Position
from ousel.v1 import event_pb2, model_service_pb2

_STATE = {
    model_service_pb2.MODEL_STATE_SERVING: ModelState.SERVING,
    model_service_pb2.MODEL_STATE_STORED: ModelState.STORED,
    model_service_pb2.MODEL_STATE_WITHDRAWN: ModelState.WITHDRAWN,
    model_service_pb2.MODEL_STATE_ROLLED_BACK: ModelState.ROLLED_BACK,
}
_ORIGIN = {
    model_service_pb2.MODEL_ORIGIN_NONE: ModelOrigin.NONE,
    model_service_pb2.MODEL_ORIGIN_REGISTRY: ModelOrigin.REGISTRY,
    model_service_pb2.MODEL_ORIGIN_LOCAL_COPY: ModelOrigin.LOCAL_COPY,
}


def roll_back_request(expected_version: int | None) -> model_service_pb2.RollBackRequest:
    """A request to roll back, from `expected_version` only where it is given.

    Raises:
        InvalidArgument: a version that the message can't carry, or 0, which would stand for any.
    """
    version = None if expected_version is None else whole("expected_version", expected_version, UINT64_FROM_1)
    return model_service_pb2.RollBackRequest(expected_version=version)


def pin_request(version: int) -> model_service_pb2.PinModelRequest:
    """A request to pin a version.

    Raises:
        InvalidArgument: a version that the message can't carry, or 0.
    """
    return model_service_pb2.PinModelRequest(version=whole("version", version, UINT64_FROM_1))


def prune_request(keep: int | None) -> model_service_pb2.PruneModelsRequest:
    """A request to keep so many models; None: as many as the engine's configuration says.

    Raises:
        InvalidArgument: a number that the message can't carry, or 0, which would stand for the configuration's.
    """
    number = None if keep is None else whole("keep", keep, UINT32_FROM_1)
    return model_service_pb2.PruneModelsRequest(keep=number)


def rolled_back(message: model_service_pb2.RollBackResponse) -> RolledBack:
    return RolledBack(message.version, message.swap_ms, message.serving)


def pinned(message: model_service_pb2.PinModelResponse) -> int:
    return message.version


def unpinned(message: model_service_pb2.UnpinModelResponse) -> int:
    return message.version


def pruned(message: model_service_pb2.PruneModelsResponse) -> tuple[int, ...]:
    return tuple(message.versions)


def model_list(message: model_service_pb2.ListModelsResponse) -> ModelList:
    return ModelList(
        models=tuple(map(_registered, message.models)),
        announced_version=message.announced_version,
        pinned_version=message.pinned_version,
        newest_version=message.newest_version,
        serving_version=message.serving_version,
        origin=origin(message.origin),
        building=building(message),
        refused=refused(message),
        registry_problem=message.registry_problem,
        dir=message.dir,
        topic=message.topic,
    )


def origin(value: int) -> ModelOrigin:
    return _ORIGIN.get(value, ModelOrigin.UNKNOWN)  # type: ignore[call-overload]


def building(message: model_service_pb2.ListModelsResponse | model_service_pb2.GetStatusResponse) -> ModelBuild | None:
    if not message.HasField("building"):
        return None
    return ModelBuild(message.building.version, message.building.progress, message.building.seconds)


def refused(message: model_service_pb2.ListModelsResponse | model_service_pb2.GetStatusResponse) -> RefusedModel | None:
    if not message.HasField("refused"):
        return None
    return RefusedModel(message.refused.version, message.refused.reason, message.refused.time.ToDatetime(UTC))


def _registered(message: model_service_pb2.RegisteredModel) -> RegisteredModel:
    return RegisteredModel(
        version=message.version,
        sha256=message.sha256.hex(),
        size_bytes=message.size_bytes,
        metrics=dict(sorted(message.metrics.items())),
        trained_on=_positions(message.trained_on),
        accepted=message.accepted.ToDatetime(UTC),
        pushed_by=message.pushed_by,
        engine=message.engine,
        state=_STATE.get(message.state, ModelState.UNKNOWN),
        reason=message.reason,
    )


def _positions(messages: Iterable[event_pb2.LogPosition]) -> tuple[Position, ...]:
    return tuple(Position(at.topic, at.partition, at.offset) for at in messages)
