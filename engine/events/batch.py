"""The log, decoded: columns for events, records for the catalog.

Shapes: E events in a batch, in log order within each partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Flaw(NamedTuple):
    """Why a stretch of the log has no record that can be read.

    Attributes:
        last_offset: the last of the offsets that are missing.
        records: how many records are missing, as far as that is known; at least 1.
        reason: says the offsets and what is wrong with them.
    """

    last_offset: int
    records: int
    reason: str


class Record(NamedTuple):
    """One record as the log holds it; with a `flaw`, the place of records that can't be read, from `offset` on."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    flaw: Flaw | None = None

    @property
    def next_offset(self) -> int:
        """Where reading goes on behind it."""
        return (self.offset if self.flaw is None else self.flaw.last_offset) + 1


@dataclass(frozen=True)
class EventBatch:
    """Validated events as columns; all of length E."""

    event_id: Sequence[str]
    user_id: Sequence[str]  # "" for an anonymous session
    session_id: Sequence[str]  # "" where the producer names none
    item_id: Sequence[str]  # "" where `forget`, and where a user is related to a user
    target_id: Sequence[str]  # of a relation: the other user or, where there is an item, the entity; else ""
    kind: NDArray[np.int8]  # position in EventsConfig.kinds; of a relation in EventsConfig.relations
    time_ms: NDArray[np.int64]  # event time, since 1970
    value: NDArray[np.float32]  # 1 where the event says 0
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]  # record time
    forget: NDArray[np.bool_]  # no event: all that is known of the user, or else of the session, is to go
    ends: NDArray[np.bool_]  # the relation is over

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def has_relations(self) -> bool:
        """Whether any of these is no event between a user and an item, but a relation."""
        return self.target_id.count("") < len(self.target_id)

    @classmethod
    def empty(cls) -> EventBatch:
        columns: dict[str, Any] = {name: [] for name in _ID_COLUMNS}
        columns |= {name: np.empty(0, dtype) for name, dtype in _ARRAY_COLUMNS.items()}
        return cls(**columns)

    @classmethod
    def joined(cls, parts: Sequence[EventBatch]) -> EventBatch:
        """Several batches as one, in this order."""
        if not parts:
            return cls.empty()
        columns: dict[str, Any] = {
            name: list(chain.from_iterable(getattr(part, name) for part in parts)) for name in _ID_COLUMNS
        }
        columns |= {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAY_COLUMNS}
        return cls(**columns)

    def select(self, index: NDArray[np.int64] | slice) -> EventBatch:
        """The events at these positions, in the order asked for; ids come as lists."""
        if isinstance(index, slice):
            columns: dict[str, Any] = {name: list(getattr(self, name)[index]) for name in _ID_COLUMNS}
        else:
            at = index.tolist()
            columns = {name: list(map(getattr(self, name).__getitem__, at)) for name in _ID_COLUMNS}
        columns |= {name: getattr(self, name)[index] for name in _ARRAY_COLUMNS}
        return EventBatch(**columns)

    def of_partition(self, partition: int) -> tuple[NDArray[np.int64], EventBatch]:
        """Positions of one partition's events, and those events."""
        at = (self.partition == partition).nonzero()[0]
        if len(at) == len(self):
            return at, self
        if len(at) and at[-1] - at[0] + 1 == len(at):
            # As a poll hands them over. A slice of a list costs a tenth of its elements one by one.
            return at, self.select(slice(int(at[0]), int(at[-1]) + 1))
        return at, self.select(at)


_ID_COLUMNS = ("event_id", "user_id", "session_id", "item_id", "target_id")
_ARRAY_COLUMNS: dict[str, type[np.generic]] = {
    "kind": np.int8,
    "time_ms": np.int64,
    "value": np.float32,
    "partition": np.int32,
    "offset": np.int64,
    "timestamp_ms": np.int64,
    "forget": np.bool_,
    "ends": np.bool_,
}


@dataclass(frozen=True)
class CatalogItem:
    """One validated record of the items topic. A tombstone (no value) reads as deleted.

    Attributes:
        offset, partition: where the record is in its topic, which is nothing that it says; -1 where that is not known.
    """

    item_id: str
    title: str = ""
    categories: tuple[str, ...] = ()
    features: tuple[float, ...] = ()
    available_from_ms: int | None = None
    available_until_ms: int | None = None
    deleted: bool = False
    attributes: tuple[tuple[str, str], ...] = ()  # by name
    offset: int = field(default=-1, compare=False, repr=False)
    partition: int = field(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class QuotedTombstone(CatalogItem):
    """A tombstone whose key is a JSON string.

    It deletes the item of that literal text, quotes included, where the catalog has a record of it, and else the item
    that the string names. Only the fold can tell.
    """

    named_id: str = ""


@dataclass(frozen=True)
class Rejection:
    """A record that broke a rule, and which; or records that can't be read, and why."""

    record: Record
    reason: str

    @property
    def records(self) -> int:
        """How many records of the log it stands for."""
        return 1 if self.record.flaw is None else self.record.flaw.records


@dataclass(frozen=True)
class Decoded:
    """One polled batch after decoding: every record of it is an event, an item or a part of a rejection."""

    events: EventBatch
    items: Sequence[CatalogItem]
    rejected: Sequence[Rejection]
    # Next offset to read of every (topic, partition) seen in this batch, rejected records included.
    positions: dict[tuple[str, int], int]
