"""The registry of models as messages of the protocol."""

from __future__ import annotations

from ousel.v1 import event_pb2, model_service_pb2

from engine.registry.ledger import ListedModel, ModelState
from engine.registry.models import ModelList
from engine.registry.standing import Building, RefusedHere, Source, Standing

_STATES = {
    ModelState.SERVING: model_service_pb2.MODEL_STATE_SERVING,
    ModelState.STORED: model_service_pb2.MODEL_STATE_STORED,
    ModelState.WITHDRAWN: model_service_pb2.MODEL_STATE_WITHDRAWN,
    ModelState.ROLLED_BACK: model_service_pb2.MODEL_STATE_ROLLED_BACK,
}
_ORIGINS = {
    Source.NONE: model_service_pb2.MODEL_ORIGIN_NONE,
    Source.REGISTRY: model_service_pb2.MODEL_ORIGIN_REGISTRY,
    Source.LOCAL_COPY: model_service_pb2.MODEL_ORIGIN_LOCAL_COPY,
}


def model_list(listed: ModelList, *, ready: bool) -> model_service_pb2.ListModelsResponse:
    """The answer of ListModels; `ready`: whether calls should be sent to this engine."""
    ledger, standing = listed.ledger, listed.standing
    answer = model_service_pb2.ListModelsResponse(
        models=map(_registered, ledger.models),
        announced_version=ledger.serving.model.version if ledger.serving else 0,
        pinned_version=ledger.pinned or 0,
        newest_version=ledger.newest,
        serving_version=listed.serving,
        serving=ready,
        origin=_ORIGINS[standing.source],
        registry_problem=standing.problem,
        dir=listed.dir,
        topic=listed.topic,
    )
    _add(answer, standing)
    return answer


def add_standing(answer: model_service_pb2.GetStatusResponse, standing: Standing) -> None:
    """Adds to the answer of GetStatus what this engine makes of the registry."""
    answer.model_origin = _ORIGINS[standing.source]
    answer.registry_problem = standing.problem
    _add(answer, standing)


def _add(
    answer: model_service_pb2.ListModelsResponse | model_service_pb2.GetStatusResponse, standing: Standing
) -> None:
    if standing.building is not None:
        answer.building.CopyFrom(_building(standing.building))
    if standing.refused is not None:
        answer.refused.CopyFrom(_refused(standing.refused))


def _registered(listed: ListedModel) -> model_service_pb2.RegisteredModel:
    model = listed.model
    message = model_service_pb2.RegisteredModel(
        version=model.version,
        sha256=bytes.fromhex(model.sha256),
        size_bytes=model.size_bytes,
        metrics=model.metrics,
        trained_on=[
            event_pb2.LogPosition(topic=at.topic, partition=at.partition, offset=at.offset) for at in model.trained_on
        ],
        pushed_by=model.pushed_by,
        engine=model.engine,
        state=_STATES[listed.state],
        reason=listed.reason,
    )
    message.accepted.FromMilliseconds(model.accepted_ms)
    return message


def _building(building: Building) -> model_service_pb2.ModelBuild:
    return model_service_pb2.ModelBuild(version=building.version, progress=building.progress, seconds=building.seconds)


def _refused(refused: RefusedHere) -> model_service_pb2.RefusedModel:
    message = model_service_pb2.RefusedModel(version=refused.version, reason=refused.reason)
    message.time.FromMilliseconds(round(1000 * refused.time_s))
    return message
