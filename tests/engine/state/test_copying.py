"""A copy made in pieces while folding goes on, and a slice made anew from what was saved of another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.state.copying import StateCopy
from engine.state.slice import SavedSlice, Slice
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch, numbered

ROOMY = {"max_users": 64, "max_items": 64, "max_targets": 64}
TIGHT = {"max_users": 3, "max_items": 3, "max_targets": 3}  # rows go from hand to hand


def new_state(**limits: int) -> State:
    sizes = {"history": 4, "neighbors": 3, "relations": 2, "content_dim": 8, "half_lives_s": (3600, 60)}
    return State(StateConfig(**sizes | limits), EventsConfig())


def plain_copy(one: Slice) -> SavedSlice:
    """What a slice holds, taken at once and by the simplest means."""
    tables = {name: table.data[:rows].clone() for name, (table, rows) in one.tables().items()}
    return one.save(tables, list(one.users.ids()), list(one.items.ids()), list(one.relations.targets.ids()))


def assert_same(got: SavedSlice, want: SavedSlice) -> None:
    for part in ("users", "items", "targets", "recent_ids"):
        assert list(getattr(got, part)) == list(getattr(want, part)), part
    assert got.numbers == want.numbers
    assert got.lists == want.lists
    assert got.tables.keys() == want.tables.keys()
    for name, table in want.tables.items():
        assert torch.equal(got.tables[name], table), name


def an_event(user: str, item: str, time_ms: int, forget: bool) -> Line:
    return Line(user, "" if user else "s1", "" if forget else item, 0, time_ms, forget=forget)


def a_relation(user: str, item: str, target: str, ends: bool) -> Line:
    """Of a user to a user or, where there is none, of an item to an entity."""
    return Line(user, "", "" if user else item, target=target, ends=ends)


users, names = st.sampled_from(["", "ann", "bob", "cid", "dan", "eve"]), st.sampled_from("vwxyz")
lines = st.lists(
    st.builds(an_event, users, names, st.integers(0, 100 * HOUR_MS), st.sampled_from([False, False, True]))
    | st.builds(a_relation, users, names, st.sampled_from(["Ford", "fay", "gus", "hal"]), st.booleans()),
    max_size=12,
)


@pytest.mark.parametrize("limits", [ROOMY, TIGHT])
@settings(max_examples=30)
@given(before=lines, during=st.lists(st.tuples(st.integers(0, 60), lines), max_size=6))
def test_a_copy_is_the_state_at_its_begin_whatever_is_folded_meanwhile(limits, before, during):
    state = new_state(**limits)
    log = numbered([*before, *(line for _, part in during for line in part)])
    state.fold(batch(log[: len(before)]))
    want = {partition: plain_copy(placed.slice) for partition, placed in state.slices.items()}
    copy, at = StateCopy(state, piece_bytes=1), len(before)  # a row or an id per step
    for pieces, part in during:
        for _ in range(pieces):
            copy.step()
        state.fold(batch(log[at : at + len(part)]))
        at += len(part)
    while not copy.step():
        pass
    saved = copy.saved().slices
    assert saved.keys() == want.keys()
    for partition, one in want.items():
        assert_same(saved[partition], one)


def test_users_and_items_that_come_and_go_during_a_copy_are_in_it_as_they_were():
    state = new_state(**TIGHT)
    log = numbered(
        [
            *(Line(user, "", item) for user, item in zip(("ann", "bob", "cid"), "xyz", strict=True)),
            Line("ann", forget=True),
            *(Line(user, "", item) for user, item in zip(("dan", "eve", "fay"), "uvw", strict=True)),
        ]
    )
    state.fold(batch(log[:3]))
    copy = StateCopy(state, piece_bytes=1)
    for line in log[3:]:  # each row is taken back, given away, and taken back again
        state.fold(batch([line]))
        copy.step()
    while not copy.step():
        pass
    saved = copy.saved().slices[0]
    assert list(saved.users) == ["ann", "bob", "cid"]
    assert list(saved.items) == ["x", "y", "z"]
    assert list(state.slices[0].slice.users.ids()) == ["dan", "eve", "fay"]


def test_rows_written_again_and_again_before_their_turn_are_copied_as_they_were_at_first():
    state = new_state(**ROOMY)
    log = numbered([Line(f"u{at % 40}", "", f"i{at % 30}", time_ms=at * HOUR_MS) for at in range(300)])
    state.fold(batch(log[:100]))
    want = plain_copy(state.slices[0].slice)
    copy = StateCopy(state, piece_bytes=64)
    for first in range(100, 300, 50):
        copy.step()
        state.fold(batch(log[first : first + 50]))
    while not copy.step():
        pass
    assert_same(copy.saved().slices[0], want)
    assert plain_copy(state.slices[0].slice).numbers["events_folded"] == 300


LIMIT = 128  # two make room at a time, so that one row stays free


def an_eventful_log() -> list[Line]:
    """Users are forgotten; users, items and targets make room. Of every kind rows and blocks are free at its end."""
    log = [Line(f"u{at}", f"s{at % 7}", f"i{(at + more) % LIMIT}", 0, at) for at in range(LIMIT) for more in (0, 1)]
    log += [Line("", "", f"i{at}", target=f"e{at}") for at in range(60, LIMIT)]
    log += [Line(f"u{at}", "", target=f"v{at}") for at in range(60)]
    log += [Line(f"u{at}", f"s{at % 5}", f"i{at % 60}", 0, at * 2000) for at in range(LIMIT)]
    log += [Line("one more", "", "i0"), *(Line(f"u{at}", forget=True) for at in range(5, 20))]
    log += [Line("u30", "", "one more"), Line("", "", "one more", target="one more")]
    return numbered(log)


def restored(state: State, saved: SavedSlice) -> Slice:
    slice_ = state.new_slice()
    slice_.restore(saved)
    return slice_


def test_a_slice_restored_from_what_was_saved_is_saved_as_the_same_and_folds_on_alike():
    state = new_state(max_users=LIMIT, max_items=LIMIT, max_targets=LIMIT)
    log = an_eventful_log()
    state.fold(batch(log))
    one = state.slices[0].slice
    assert (one.evicted_users, one.evicted_items, one.evicted_targets, one.forgotten) == (2, 2, 2, 15)
    saved = plain_copy(one)
    free = {name: rows for name, rows in saved.lists.items() if name.endswith(".free")}
    assert len(free) == 9
    assert all(free.values()), free  # else this test would show nothing of them
    again = restored(state, saved)
    assert_same(plain_copy(again), saved)
    more = [Line(f"new{at}", "", f"n{at}", 0, 10**6) for at in range(40)]
    more += [Line(f"new{at}", "", target=f"w{at}") for at in range(9)]
    more += [Line("", "", f"n{at}", target=f"f{at}") for at in range(9)]
    after = numbered([*log, *more])[len(log) :]
    for slice_ in (one, again):
        slice_.fold(batch(after).events, after[-1].offset + 1)
    assert_same(plain_copy(again), plain_copy(one))


def test_the_scale_of_popularity_moves_for_all_items_of_a_restored_slice():
    state = new_state(**ROOMY)
    log = numbered([Line("ann", "", f"i{at % 9}", 0, at * HOUR_MS) for at in range(20)])
    state.fold(batch(log))
    one = state.slices[0].slice
    again = restored(state, plain_copy(one))
    late = [Line("ann", "", "i0", 0, 3000 * HOUR_MS, offset=len(log) + at) for at in range(2)]
    for slice_ in (one, again):
        slice_.fold(batch(late).events, len(log) + 2)
    assert one.popularity.landmarks[0] > 2900
    assert_same(plain_copy(again), plain_copy(one))
