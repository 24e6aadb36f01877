"""Small logs for tests: records, decoded batches, and what a log is cut into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.events.batch import CatalogItem, Decoded, EventBatch

HOUR_MS = 3_600_000
TOPIC = "ousel.events"
# user, session, item, kind, time in ms
Row = tuple[str, str, str, int, int]


class Line(NamedTuple):
    """One record of the events topic, decoded."""

    user: str = ""
    session: str = ""
    item: str = ""
    kind: int = 0
    time_ms: int = 0
    partition: int = 0
    offset: int = 0
    event_id: str = ""
    value: float = 1.0
    forget: bool = False
    target: str = ""  # of a relation
    ends: bool = False


def numbered(lines: Sequence[Line]) -> list[Line]:
    """The lines with the offsets that they have in their partitions."""
    ends: dict[int, int] = {}
    found = []
    for line in lines:
        offset = ends.get(line.partition, 0)
        ends[line.partition] = offset + 1
        found.append(line._replace(offset=offset))
    return found


def batch(lines: Sequence[Line], items: Sequence[CatalogItem] = ()) -> Decoded:
    """One batch of these lines; its positions are behind the last line of each partition."""
    time_ms = np.array([line.time_ms for line in lines], dtype=np.int64)
    events = EventBatch(
        event_id=[line.event_id for line in lines],
        user_id=[line.user for line in lines],
        session_id=[line.session for line in lines],
        item_id=[line.item for line in lines],
        target_id=[line.target for line in lines],
        kind=np.array([line.kind for line in lines], dtype=np.int8),
        time_ms=time_ms,
        value=np.array([line.value for line in lines], dtype=np.float32),
        partition=np.array([line.partition for line in lines], dtype=np.int32),
        offset=np.array([line.offset for line in lines], dtype=np.int64),
        timestamp_ms=time_ms,
        forget=np.array([line.forget for line in lines], dtype=np.bool_),
        ends=np.array([line.ends for line in lines], dtype=np.bool_),
    )
    return Decoded(events, items, (), {(TOPIC, line.partition): line.offset + 1 for line in lines})


def decoded(rows: Sequence[Row], first_offset: int = 0, items: Sequence[CatalogItem] = ()) -> Decoded:
    """One batch of partition 0; every event has an id of its own."""
    return batch([Line(*row, 0, at, f"e{at}") for at, row in enumerate(rows, first_offset)], items)


def cut(rows: Sequence[Row], lengths: Sequence[int]) -> list[Decoded]:
    """The log as batches of these lengths; what is left over comes last, in one."""
    batches, at = [], 0
    for length in [*lengths, len(rows)]:
        part = rows[at : at + length]
        batches.append(decoded(part, at))
        at += len(part)
    return batches
