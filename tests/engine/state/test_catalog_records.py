"""Which catalog records are kept: of the items updated last and of those that events name, whatever came first."""

from __future__ import annotations

from itertools import permutations

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
    assert len(state.catalog) == LIMIT + len(USED) and state.records.evicted == 3000 - LIMIT
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


def test_the_records_of_all_items_that_events_name_stay_beside_those_updated_last():
    state = new_state(max_items=2)
    state.fold(batch(numbered([Line("ann", "", "a"), Line("ann", "", "b")]), [CatalogItem("a"), CatalogItem("b", "B")]))
    state.fold(batch([], [CatalogItem("a", "A again"), CatalogItem("c", "C"), CatalogItem("d", "D")]))
    assert [title_of(state, item_id) for item_id in "abcd"] == ["A again", "B", "C", "D"]
    assert state.records.evicted == 0 and len(state.catalog) == 4 and state.records.used == 2


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_which_records_were_updated_last_is_told_by_their_offsets_not_by_the_order_in_which_partitions_are_read(order):
    state = new_state(max_items=2)
    records = [CatalogItem(f"i{at}", f"T{at}", offset=at // 2, partition=at % 2) for at in range(3)]
    state.fold(batch([], [records[at] for at in order]))
    assert [title_of(state, f"i{at}") for at in range(3)] == ["", "T1", "T2"]


def test_a_record_that_is_kept_for_events_alone_goes_with_them_and_its_row_too():
    state = new_state(max_items=2)
    state.fold(batch(numbered([Line("ann", "", "old")]), [CatalogItem("old", "Old")]))
    state.fold(batch([], [CatalogItem("b"), CatalogItem("c")]))
    assert title_of(state, "old") == "Old" and state.records.used == 1
    state.fold(batch([Line("ann", "", name, offset=at) for at, name in enumerate("bc", 1)]))  # They push "old" out.
    assert state.items.get("old") is None and state.records.used == 0 and len(state.catalog) == 2


def sought(state: State) -> list[str]:
    return [state.items.id_of(row) for row in state.records.seek()]


def test_an_item_that_is_named_after_its_record_was_dropped_is_wanted_and_gets_it_back():
    state = new_state(max_items=1)
    state.fold(batch([], [CatalogItem("a", "A"), CatalogItem("b", "B")]))
    state.fold(batch(numbered([Line("ann", "", "a"), Line("ann", "", "b")]), []))
    assert state.records.wanted == 0  # The slice has room for one item, so that only "b" is named now.
    state.fold(batch([Line("ann", "", "a", offset=2)]))
    assert sought(state) == ["a"] and state.records.wanted == 0
    state.take_found([CatalogItem("a", "A")])
    state.records.end_search(found=True)
    assert title_of(state, "a") == "A"


def searching() -> State:
    """A state that seeks the record of "a", which was dropped before the event."""
    state = new_state(max_items=1)
    state.fold(batch([], [CatalogItem("a", "A"), CatalogItem("b", "B")]))
    state.fold(batch(numbered([Line("ann", "", "a")])))
    assert sought(state) == ["a"]
    return state


def test_a_record_that_comes_while_an_older_one_is_sought_is_not_replaced_by_that():
    state = searching()
    state.fold(batch([], [CatalogItem("a", "A again"), CatalogItem("c", "C")]))
    state.take_found([CatalogItem("a", "A")])
    state.records.end_search(found=True)
    assert title_of(state, "a") == "A again"


def test_a_deletion_that_was_dropped_is_brought_back_and_hides_the_item():
    state = searching()
    state.take_found([CatalogItem("a", deleted=True)])
    state.records.end_search(found=True)
    row = state.items.find(["a"]).numpy()
    assert state.catalog.deleted(row).all() and state.popularity.hidden(row).all()


def test_what_a_search_does_not_find_is_wanted_again_only_if_the_search_failed():
    state = searching()
    state.take_found([])
    state.records.end_search(found=False)
    assert sought(state) == ["a"]
    state.take_found([])
    state.records.end_search(found=True)
    assert sought(state) == []


def test_without_a_dropped_record_no_item_is_wanted():
    state = new_state(max_items=3)
    state.fold(batch(numbered([Line("ann", "", "x")]), [CatalogItem("a"), CatalogItem("b"), CatalogItem("c")]))
    assert state.records.wanted == 0 and not state.records.dropped


def test_a_record_that_finds_no_room_in_memory_is_wanted_again_once_there_is_room():
    records = CatalogRecords(1, 2 * 10_000)
    large = [CatalogItem(f"i{row}", "x" * 6000, offset=row) for row in range(4)]
    records.name([0, 1])
    assert [records.put(row, large[row]) for row in range(4)] == [[], [], [0], [2]]
    assert records.used == 1 and records.wanted == 0
    records.unname([1])
    assert records.seek() == [0] and records.put_back(0, large[0]) == [] and 0 in records


operation = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 60)),
    st.tuples(st.sampled_from(["name", "unname", "remove"]), st.integers(0, 9), st.just(0)),
)


@given(operations=st.lists(operation, max_size=60), max_records=st.integers(1, 6), max_kib=st.integers(1, 4))
def test_both_limits_hold_and_whatever_is_lost_is_told(operations, max_records, max_kib):
    records = CatalogRecords(max_records, 2 * max_kib * 1024)
    named: set[int] = set()
    for what, row, size in operations:
        held = set(records.rows())
        if what == "put":
            lost = records.put(row, CatalogItem(f"{row}", "x" * size, ("c" * size,)))
            assert set(records.rows()) == (held | {row}) - set(lost)
        elif what == "remove":
            records.remove(row)
            assert set(records.rows()) == held - {row}
        else:
            getattr(records, what)([row])
            named = named | {row} if what == "name" else named - {row}
            assert set(records.rows()) in (held, held - {row})
        used, last = records.records()[: records.used], records.records()[records.used :]
        assert len(last) <= max_records and set(records.rows()[: len(used)]) <= named
        for part in (used, last):
            assert len(part) <= 1 or sum(map(record_bytes, part)) <= max_kib * 1024
        assert records.bytes == sum(map(record_bytes, records.records()))


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
    again.open(0, whole.slices[0].slice)
    again.restore_catalog(whole.catalog.records(), {}, 0, used=whole.records.used, dropped=whole.records.dropped)
    for state in (whole, again):
        state.fold(batch([], invented[cut:]))
    assert sorted(map(repr, whole.catalog.records())) == sorted(map(repr, again.catalog.records()))


@pytest.mark.parametrize("max_items", [1, 200_000, 1_000_000, 20_000_000])
def test_by_default_the_bound_on_memory_leaves_room_for_as_many_records_as_the_bound_on_items(max_items):
    """A shop that raises the one must not lose items by the other."""
    usual = CatalogItem(
        "a-usual-item-id", "A title that says of a product what a shop says of it as a rule, on two lines",
        ("Sports", "Shoes", "Running shoes"),
        attributes=tuple((f"attribute-{at}", f"its value {at}") for at in range(8)),
    )  # fmt: skip
    assert record_bytes(usual) * max_items <= StateConfig(max_items=max_items).catalog_bytes // 2


def test_the_bound_on_memory_is_what_it_is_set_to():
    assert StateConfig(max_items=1_000_000, max_catalog_bytes=2**20).catalog_bytes == 2**20
