"""Small logs for tests: records, decoded batches, and what a log is cut into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.events.batch import CatalogItem, Decoded, EventBatch

HOUR_MS = 3_600_000
# user, session, item, kind, time in ms
Row = tuple[str, str, str, int, int]


def decoded(rows: Sequence[Row], first_offset: int = 0, items: Sequence[CatalogItem] = ()) -> Decoded:
    """One batch of partition 0 of topic "e"."""
    count = len(rows)
    offset = np.arange(first_offset, first_offset + count, dtype=np.int64)
    time_ms = np.array([row[4] for row in rows], dtype=np.int64)
    events = EventBatch(
        event_id=[f"e{at}" for at in offset],
        user_id=[row[0] for row in rows],
        session_id=[row[1] for row in rows],
        item_id=[row[2] for row in rows],
        kind=np.array([row[3] for row in rows], dtype=np.int8),
        time_ms=time_ms,
        value=np.ones(count, dtype=np.float32),
        partition=np.zeros(count, dtype=np.int32),
        offset=offset,
        timestamp_ms=time_ms,
    )
    return Decoded(events, items, (), {("e", 0): first_offset + count} if count else {})


def cut(rows: Sequence[Row], lengths: Sequence[int]) -> list[Decoded]:
    """The log as batches of these lengths; what is left over comes last, in one."""
    batches, at = [], 0
    for length in [*lengths, len(rows)]:
        part = rows[at : at + length]
        batches.append(decoded(part, at))
        at += len(part)
    return batches
