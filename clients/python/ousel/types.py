"""What the client hands out: small frozen values, free of protobuf and gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Origin(StrEnum):
    """What ordered a list."""

    MODEL = "model"
    POPULARITY = "popularity"
    UNKNOWN = "unknown"  # an engine newer than this client


class Source(StrEnum):
    """Where a recommended item came from."""

    INDEX = "index"
    HISTORY = "history"
    NEIGHBOR = "neighbor"
    POPULAR = "popular"
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """Why a stream got a list."""

    SUBSCRIBED = "subscribed"
    EVENTS = "events"
    MODEL = "model"
    CATALOG = "catalog"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record lies in the log."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One item of a list, with all sources that proposed it."""

    item_id: str
    title: str
    score: float
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class RecommendationList:
    """A ranked list.

    Attributes:
        items: best first.
        origin: what ordered them.
        known: False where the engine has seen no event of this user or session.
        model_version: 0 before the first model.
        reflects: the last event folded of each log partition when the list was made.
    """

    items: tuple[Recommendation, ...]
    origin: Origin
    known: bool
    model_version: int
    reflects: tuple[Position, ...]


@dataclass(frozen=True, slots=True)
class Update:
    """One list of a stream and why it came."""

    list: RecommendationList
    cause: Cause


@dataclass(frozen=True, slots=True)
class Tracked:
    """The log has the event: its id, and where it lies."""

    event_id: str
    position: Position


@dataclass(frozen=True, slots=True)
class Status:
    """How the engine is doing.

    Attributes:
        serving: True once the engine has caught up with the log.
        model_version: 0 before the first model.
        model_metrics: what the trainer measured, by name.
        model_versions: every version served since the engine started, oldest first.
        lag: records in the log that are not folded yet.
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
