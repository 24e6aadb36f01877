from __future__ import annotations

from engine.state.sessions import UNNAMED
from engine.state.subjects import subject_key
from tests.trainer.planted import decoded
from trainer.store import EventStore

LIMIT = 20


def append(store: EventStore, users: list[str], first: int, partition: int = 0) -> None:
    times = list(range(first, first + len(users)))
    items = [f"i{time}" for time in times]
    store.append(decoded(users, items, times, [""] * len(users), [], partition=partition).events)


def test_only_ids_of_events_at_hand_are_known_however_long_the_log() -> None:
    store = EventStore(LIMIT)
    for first in range(0, 1000, 5):
        append(store, [f"u{first}"] * 5, first)
        users, items = store.named
        assert users <= 2 * LIMIT and items <= 2 * LIMIT
    newest = store.newest()
    assert newest.users == 4
    assert [newest.item_ids[item] for item in newest.item] == [f"i{time}" for time in range(980, 1000)]
    # Numbers are given again: none is above what there is room for.
    assert len(store._items) <= 2 * LIMIT + 5


def test_forgotten_events_are_neither_counted_nor_kept_through_a_trim() -> None:
    store = EventStore(LIMIT)
    append(store, ["u", "v"] * 8, 0)
    append(store, ["u", "v"] * 7, 16)
    store.forget([(subject_key("u", ""), 0)])
    assert len(store) == 15 == len(store.newest().user)
    append(store, ["w"] * 15, 30)  # more than there are places: it trims
    assert store.newest().time_ms.tolist() == [*range(21, 30, 2), *range(30, 45)]
    assert store.newest().users == 2


def test_nothing_of_the_forgotten_is_left_in_memory() -> None:
    store = EventStore(LIMIT)
    append(store, ["u", "v", "u"], 100)
    store.forget([(subject_key("u", ""), 0)])
    assert all(
        column.count_nonzero() <= 1 for name, column in store._columns.items() if name not in ("user", "session_name")
    )
    assert store._columns["session_name"][:3].tolist() == [0, UNNAMED, 0]
    assert store._columns["time_ms"][:3].tolist() == [0, 101, 0]
    assert list(store._users.ids()) == ["", "v"]


def test_who_is_unknown_is_forgotten_without_effect() -> None:
    store = EventStore(LIMIT)
    append(store, ["u"], 0)
    store.forget([(subject_key("v", ""), 0), (subject_key("", "u"), 0), (subject_key("u", ""), 1)])
    assert len(store) == 1


def test_who_is_forgotten_in_one_partition_stays_in_the_others_under_one_number() -> None:
    store = EventStore(LIMIT)
    append(store, ["u", "v"], 0)
    append(store, ["v", "u"], 10, partition=3)
    store.forget([("u", 0), ("v", 3), ("v", 7)])
    assert store.newest().time_ms.tolist() == [1, 11] and store.named[0] == 2
    append(store, ["u"], 20)
    newest = store.newest()
    assert newest.user[1] == newest.user[2] != newest.user[0]
    store.forget([("u", 0), ("u", 3)])
    assert store.newest().time_ms.tolist() == [1] and list(store._users.ids()).count("u") == 0
