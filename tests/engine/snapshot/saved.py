"""Small states at rest, made by folding events, and how two of them compare."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from engine.config import EventsConfig, KafkaConfig, SnapshotConfig, StateConfig
from engine.events.batch import CatalogItem, Decoded
from engine.events.source import LogRange
from engine.snapshot.settings import fingerprint
from engine.snapshot.store import SnapshotStore
from engine.state.copying import SavedCatalog, SavedState
from engine.state.slice import SavedSlice, Slice
from engine.state.state import State
from tests.engine.logs import Row, decoded

CONFIG = StateConfig(max_users=4, max_items=4, max_targets=4, duplicates_window=8, features_dim=2)
EVENTS, KAFKA = EventsConfig(), KafkaConfig()
SETTINGS = fingerprint(CONFIG, EVENTS, KAFKA, 1)
ANY = LogRange(0, 1_000_000)
CATALOG_LOG = {("ousel.items", 0): LogRange(0, 1000)}
ITEMS = (
    CatalogItem("x", "A title", ("one", "two"), (0.1, -2.5), available_from_ms=5, available_until_ms=2**40),
    CatalogItem("ÿ\u2028\U0001f426", "\u202e", ("",), attributes=(("é\n", ""), ("price", "9.99"))),
    CatalogItem("gone", deleted=True),
)
# More users and items than there is room for, anonymous sessions among them.
ROWS: list[Row] = [
    (f"u{at % 7}" if at % 3 else "", f"s{at % 5}", f"ü{at % 6}", at % 3, 1_700_000_000_000 + 1000 * at)
    for at in range(60)
]


def save(slice_: Slice) -> SavedSlice:
    tables = {name: table.data[:rows].clone() for name, (table, rows) in slice_.tables().items()}
    ids = [list(nodes.ids()) for nodes in (slice_.users, slice_.items, slice_.relations.targets)]
    return slice_.save(tables, *ids)


def new_slice() -> Slice:
    return Slice(CONFIG, EVENTS, CONFIG.max_users)


def fold(slice_: Slice, batch: Decoded) -> None:
    slice_.fold(batch.events, int(batch.events.offset[-1]) + 1)


def folded(events: int = len(ROWS), forget: str = "") -> Slice:
    """A slice of the first events of ROWS, that has then forgotten a user."""
    slice_ = new_slice()
    if events:
        fold(slice_, decoded(ROWS[:events]))
    if forget:
        batch = decoded([(forget, "", "", 0, 0)], events)
        fold(slice_, replace(batch, events=replace(batch.events, forget=np.array([True]))))
    return slice_


@cache
def catalog() -> SavedCatalog:
    """What a state says of its catalog after it has folded ITEMS."""
    state = State(CONFIG, EVENTS)
    state.fold(Decoded(decoded([]).events, ITEMS, (), {("ousel.items", 0): 3}))
    items = state.catalog.records()
    return SavedCatalog(items, {("ousel.items", 0): 3}, state.items_folded)


@cache
def state_of(*events: int) -> SavedState:
    """Partition 0, 1, ... with so many events each."""
    return SavedState("ousel.events", {at: save(folded(count)) for at, count in enumerate(events)}, catalog())


def store(path: Path, engine: str = "a", keep: int = 3, settings: dict = SETTINGS) -> SnapshotStore:
    return SnapshotStore(SnapshotConfig(dir=path, keep=keep), engine, settings)


def assert_same(got: SavedSlice | None, want: SavedSlice) -> None:
    assert got is not None
    assert got.tables.keys() == want.tables.keys()
    for name, table in want.tables.items():
        assert got.tables[name].dtype == table.dtype, name
        assert got.tables[name].shape == table.shape, name
        assert got.tables[name].numpy().tobytes() == table.numpy().tobytes(), name  # NaN is not equal to itself
    assert list(got.users) == list(want.users)
    assert list(got.items) == list(want.items)
    assert list(got.targets) == list(want.targets)
    assert list(got.recent_ids) == list(want.recent_ids)
    assert dict(got.numbers) == dict(want.numbers)
    assert got.began == want.began
    assert {name: list(values) for name, values in got.lists.items()} == dict(want.lists)


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
