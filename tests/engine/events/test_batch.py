from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.events.batch import EventBatch
from tests.engine.logs import decoded

ROWS = [(f"u{n}", f"s{n}", f"i{n}", n % 2, 1000 + n) for n in range(6)]


def rows(batch: EventBatch) -> list[tuple[object, ...]]:
    columns = [getattr(batch, field.name) for field in dataclasses.fields(EventBatch)]
    return list(zip(*(c.tolist() if isinstance(c, np.ndarray) else c for c in columns), strict=True))


@pytest.mark.parametrize("index", [[4, 0, 0, 5], [], slice(1, 4), slice(None, None, -2)])
def test_select_takes_the_events_asked_for(index: list[int] | slice) -> None:
    batch = decoded(ROWS).events
    part = batch.select(index if isinstance(index, slice) else np.array(index, np.int64))
    everything = rows(batch)
    assert rows(part) == (everything[index] if isinstance(index, slice) else [everything[at] for at in index])
    for field in dataclasses.fields(EventBatch):
        column, before = getattr(part, field.name), getattr(batch, field.name)
        assert type(column) is type(before)
        assert not isinstance(column, np.ndarray) or column.dtype == before.dtype


def test_joined_batches_follow_each_other() -> None:
    parts = [decoded(ROWS[:2]).events, EventBatch.empty(), decoded(ROWS[2:], 2).events]
    assert rows(EventBatch.joined(parts)) == rows(decoded(ROWS).events)
    assert rows(EventBatch.joined([])) == rows(EventBatch.empty()) == []


def test_an_empty_batch_has_columns_of_the_same_types() -> None:
    empty, batch = EventBatch.empty(), decoded(ROWS).events
    assert len(empty) == 0
    for field in dataclasses.fields(EventBatch):
        column = getattr(batch, field.name)
        if isinstance(column, np.ndarray):
            assert getattr(empty, field.name).dtype == column.dtype
