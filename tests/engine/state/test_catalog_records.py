"""Which catalog records make room: those of items that no event names first, within limits of number and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.events.batch import CatalogItem
from engine.state.catalog_records import CatalogRecords, record_bytes
from engine.state.state import State
from tests.engine.logs import Line, batch, numbered

LIMIT = 20
USED = [f"used-{at}" for at in range(5)]


def new_state(**limits: int) -> State:
    return State(StateConfig(**{"max_items": LIMIT, "max_users": 64, "content_dim": 8} | limits), EventsConfig())


def title_of(state: State, item_id: str) -> str:
    row = state.items.get(item_id)
    return "" if row is None else state.catalog.title[row]


def fold_real_items(state: State) -> None:
    lines = numbered([Line("ann", "", item_id) for item_id in USED])
    state.fold(batch(lines, [CatalogItem(item_id, f"Title of {item_id}", ("real",)) for item_id in USED]))


@pytest.mark.parametrize("at_once", [1, 7, 3000])
def test_a_producer_that_invents_items_pushes_out_none_that_people_use(at_once):
    state = new_state()
    fold_real_items(state)
    invented = [CatalogItem(f"invented-{at}", "Buy this", ("spam",)) for at in range(3000)]
    for first in range(0, len(invented), at_once):
        state.fold(batch([], invented[first : first + at_once]))
    assert [title_of(state, item_id) for item_id in USED] == [f"Title of {item_id}" for item_id in USED]
    assert len(state.catalog) == LIMIT and state.records.evicted == 3000 + len(USED) - LIMIT
    # The newest of the others are kept.
    assert title_of(state, "invented-2999") == "Buy this" and title_of(state, "invented-2900") == ""
    assert not state.catalog.deleted(state.items.find(USED).numpy()).any()


def test_a_used_item_that_is_deleted_stays_deleted_whatever_is_invented():
    state = new_state()
    fold_real_items(state)
    state.fold(batch([], [CatalogItem(USED[0], deleted=True)]))
    state.fold(batch([], [CatalogItem(f"invented-{at}") for at in range(500)]))
    assert state.catalog.deleted(state.items.find([USED[0]]).numpy()).all()


def test_an_item_whose_events_are_gone_makes_room_again():
    state = new_state(max_items=3)
    state.fold(batch(numbered([Line("ann", "", "old")]), [CatalogItem("old", "Old")]))
    # Three other items push "old" out of the events' state, and three records then push out its own.
    state.fold(batch([Line("ann", "", f"new-{at}", offset=1 + at) for at in range(3)]))
    assert title_of(state, "old") == "Old"
    state.fold(batch([], [CatalogItem(f"new-{at}", "New") for at in range(3)]))
    assert title_of(state, "old") == "" and [title_of(state, f"new-{at}") for at in range(3)] == ["New"] * 3


def test_where_events_name_all_items_the_longest_not_updated_makes_room():
    state = new_state(max_items=2)
    state.fold(batch(numbered([Line("ann", "", "a"), Line("ann", "", "b")]), [CatalogItem("a"), CatalogItem("b", "B")]))
    state.fold(batch([], [CatalogItem("a", "A again"), CatalogItem("c", "C")]))
    # "c" is named by no event, so that it finds no room.
    assert [title_of(state, item_id) for item_id in "abc"] == ["A again", "B", ""]
    assert state.records.evicted == 1 and len(state.catalog) == 2


operation = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 60)),
    st.tuples(st.sampled_from(["name", "unname", "remove"]), st.integers(0, 9), st.just(0)),
)


@given(operations=st.lists(operation, max_size=60), max_records=st.integers(1, 6), max_kib=st.integers(1, 4))
def test_both_limits_hold_and_named_items_lose_theirs_last(operations, max_records, max_kib):
    records = CatalogRecords(max_records, max_kib * 1024)
    named: set[int] = set()
    evicted = 0
    for what, row, size in operations:
        if what == "put":
            held = set(records.rows())
            record = CatalogItem(f"{row}", "x" * size, ("c" * size,))
            lost = records.put(row, record)
            evicted += len(lost)
            assert set(records.rows()) == (held | {row}) - set(lost)
            if any(one in named for one in lost):
                assert named >= set(records.rows())
        elif what == "remove":
            records.remove(row)
        else:
            getattr(records, what)([row])
            named = named | {row} if what == "name" else named - {row}
        assert len(records) <= max_records and (len(records) == 1 or records.bytes <= max_kib * 1024)
        assert records.bytes == sum(map(record_bytes, records.records())) and records.evicted == evicted
        assert all(row in records for row in records.rows())


def test_records_count_the_bytes_of_their_texts_so_that_few_large_ones_are_many():
    records = CatalogRecords(1000, 100_000)
    for row in range(100):
        records.put(row, CatalogItem(f"i{row}", attributes=(("text", "é" * 8000),)))
    assert 1 <= len(records) < 12 and records.bytes <= 100_000


@pytest.mark.parametrize("cut", range(0, 41, 5))
def test_a_restart_between_goes_on_as_the_one_that_never_stopped(cut):
    invented = [CatalogItem(f"invented-{at}", f"T{at}") for at in range(40)]
    whole, again = new_state(), new_state()
    fold_real_items(whole)
    whole.fold(batch([], invented[:cut]))
    again.restore_catalog(whole.catalog.records(), {}, 0)
    again.open(0, whole.slices[0].slice)
    for state in (whole, again):
        state.fold(batch([], invented[cut:]))
    assert sorted(map(repr, whole.catalog.records())) == sorted(map(repr, again.catalog.records()))
