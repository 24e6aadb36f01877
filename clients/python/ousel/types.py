"""What the client hands out: small frozen values, free of protobuf and gRPC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Origin(StrEnum):
    """What ordered a list, and so what its scores mean: see "Scores" in the README."""

    MODEL = "model"
    POPULARITY = "popularity"
    COVISITATION = "covisitation"
    FREQUENCY = "frequency"
    UNKNOWN = "unknown"  # an engine newer than this client


class Source(StrEnum):
    """Where a recommended item came from."""

    INDEX = "index"
    HISTORY = "history"
    NEIGHBOR = "neighbor"
    POPULAR = "popular"
    FRIEND = "friend"
    ENTITY = "entity"
    BACKFILL = "backfill"
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
class Query:
    """One list of a batch; the fields are the arguments of `Client.recommend`."""

    user_id: str | None = None
    session_id: str | None = None
    k: int | None = None
    categories: Iterable[str] = ()
    exclude_item_ids: Iterable[str] = ()
    exclude_history: bool = False


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
class Subject:
    """A user, or an anonymous session; the other field is empty."""

    user_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The log has it that these are forgotten.

    Attributes:
        subjects: the one asked for, then its linked anonymous sessions.
        positions: of the records that say so, one per subject and partition.
        partitions: where linked sessions were looked for: those that the engine reads.
    """

    subjects: tuple[Subject, ...]
    positions: tuple[Position, ...]
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RememberedEvent:
    """One event of a user's history; those of one session share `session`."""

    item_id: str
    kind: str
    time: datetime
    value: float
    session: int


@dataclass(frozen=True, slots=True)
class RememberedRelation:
    """A relation to another user."""

    user_id: str
    kind: str
    time: datetime
    value: float


@dataclass(frozen=True, slots=True)
class HeldSubject:
    """What one partition holds about a user or an anonymous session.

    Attributes:
        session_id: of an anonymous session; "" for what is held under the user's own id.
        history: the latest events, oldest first.
        sessions: how many were begun, those of which nothing is remembered included.
        named_by_item_ids: items that remember this subject among their latest users.
        relations: to other users, that named last last.
        named_by_users: how many users are related to this one.
    """

    partition: int
    session_id: str
    history: tuple[RememberedEvent, ...]
    sessions: int
    named_by_item_ids: tuple[str, ...]
    relations: tuple[RememberedRelation, ...] = ()
    named_by_users: int = 0


@dataclass(frozen=True, slots=True)
class Exported:
    """All that the engine holds about a user.

    Attributes:
        known: False where it holds nothing.
        partitions: those that the engine reads; what lies in others is held elsewhere.
    """

    known: bool
    subjects: tuple[HeldSubject, ...]
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartitionDigest:
    """One partition of the events topic: SHA-256 in hexadecimal, and the last record that it reflects."""

    digest: str
    reflects: Position
    events_folded: int


@dataclass(frozen=True, slots=True)
class StateDigest:
    """The engine's state at one moment. Engines that folded the same records have equal digests.

    Attributes:
        catalog_reflects: the last record folded of each partition of the items topic.
    """

    partitions: tuple[PartitionDigest, ...]
    catalog_digest: str
    catalog_reflects: tuple[Position, ...]
