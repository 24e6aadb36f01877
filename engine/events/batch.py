"""What the log says, decoded: columns for events, records for the catalog.

Shapes: E events in a batch, in log order within each partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Record(NamedTuple):
    """One record as the log holds it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True)
class EventBatch:
    """Validated events as columns; all of length E."""

    event_id: Sequence[str]
    user_id: Sequence[str]  # "" for an anonymous session
    session_id: Sequence[str]  # "" where the producer names none
    item_id: Sequence[str]
    kind: NDArray[np.int8]  # position in EventsConfig.kinds
    time_ms: NDArray[np.int64]  # event time, since 1970
    value: NDArray[np.float32]  # 1 where the event says 0
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]  # record time

    def __len__(self) -> int:
        return len(self.item_id)


@dataclass(frozen=True)
class CatalogItem:
    """One validated record of the items topic. A tombstone (no value) reads as deleted."""

    item_id: str
    title: str = ""
    categories: tuple[str, ...] = ()
    features: tuple[float, ...] = ()
    available_from_ms: int | None = None
    available_until_ms: int | None = None
    deleted: bool = False


@dataclass(frozen=True)
class Rejection:
    """A record that broke a rule, and which."""

    record: Record
    reason: str


@dataclass(frozen=True)
class Decoded:
    """One polled batch after decoding: len(events) + len(items) + len(rejected) records went in."""

    events: EventBatch
    items: Sequence[CatalogItem]
    rejected: Sequence[Rejection]
    # Next offset to read of every (topic, partition) seen in this batch, rejected records included.
    positions: dict[tuple[str, int], int]
