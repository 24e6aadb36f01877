"""The values that the client returns about an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ousel.model_types import ModelBuild, ModelOrigin, RefusedModel
from ousel.types import Position


@dataclass(frozen=True, slots=True)
class Status:
    """How the engine is doing.

    Attributes:
        serving: True once the engine has caught up with the log, and while the log answers.
        model_version: 0 before the first model.
        model_metrics: what the trainer measured, by name.
        model_versions: every version served since the engine started, in order; one rolled back to comes again.
        lag: records in the log that are not folded yet.
        partitions: those of the events topic that the engine reads.
        partitions_total: of the events topic, those of other engines included.
        users_limit: users and anonymous sessions that the engine may hold; the longest idle make room.
        users_forgotten: because that was asked for.
        events_duplicate: repeats by a producer, folded once.
        records_redelivered: handed over again by the log, folded once.
        targets: users and entities that relations lead to, counted per partition.
        building: the model that the engine is making ready; None where it is not building any.
        refused: the model that was to serve and that the engine does not take; None where there is none.
        model_origin: where the serving model is from.
        registry_problem: what keeps the engine from following the registry of models; "" where nothing does.
        snapshot_time: when the engine's newest snapshot was taken; None before its first.
    """

    serving: bool
    model_version: int
    model_metrics: Mapping[str, float]
    model_versions: tuple[int, ...]
    users: int
    items: int
    index_items: int
    events_folded: int
    items_folded: int
    events_dead_lettered: int
    lag: int
    streams: int
    failed_calls: int
    reflects: tuple[Position, ...]
    uptime_s: float
    partitions: tuple[int, ...] = ()
    partitions_total: int = 0
    users_limit: int = 0
    users_evicted: int = 0
    items_evicted: int = 0
    users_forgotten: int = 0
    events_duplicate: int = 0
    records_redelivered: int = 0
    snapshot_time: datetime | None = None
    targets: int = 0
    targets_evicted: int = 0
    building: ModelBuild | None = None
    refused: RefusedModel | None = None
    model_origin: ModelOrigin = ModelOrigin.UNKNOWN
    registry_problem: str = ""
