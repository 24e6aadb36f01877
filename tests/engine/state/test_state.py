"""The whole state: partitions together, the catalog, and rows that come and go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.events.batch import CatalogItem, Decoded
from engine.state.state import State
from engine.state.subjects import subject_key
from tests.engine.logs import HOUR_MS, TOPIC, Line, batch, numbered
from tests.engine.state.digests import edges_of, merged_digest, slice_digest, state_digest

USERS, SESSIONS, ITEMS = ["", "ann", "bob"], ["s1", "s2", "s3"], [*"xyzw"]
SUBJECTS = ["ann", "bob", *(subject_key("", session) for session in SESSIONS)]
HISTORY = 6
log_of_lines = st.lists(
    st.tuples(
        st.sampled_from(USERS), st.sampled_from(SESSIONS), st.sampled_from(ITEMS), st.integers(0, 7),
        st.integers(0, 20), st.integers(0, 2),
    ).map(lambda columns: Line(*columns)),
    max_size=30,
).map(numbered)  # fmt: skip


def new_state(partitions: int = 3, **limits) -> State:
    limits = {"max_users": 60, "max_items": 9, "history": HISTORY, "neighbors": 3, "content_dim": 8} | limits
    return State(StateConfig(**limits), EventsConfig(), partitions=partitions)


def folded(lines: list[Line], items: list[CatalogItem] | None = None, **limits) -> State:
    state = new_state(**limits)
    state.fold(batch(numbered(lines), items or []))
    return state


@pytest.mark.parametrize("order", ["aabb", "abab", "abba", "bb"])
def test_partitions_of_a_batch_fold_alike_however_they_lie_in_it_and_without_events_too(order):
    lines = numbered([Line("ann", "s", "xyzw"[at], partition="ab".index(name)) for at, name in enumerate(order)])
    mixed, apart = new_state(), new_state()
    mixed.fold(replace(batch(lines), positions={(TOPIC, at): 4 for at in range(3)}))  # the rest was rejected
    for at in range(3):
        own = [line for line in lines if line.partition == at]
        apart.fold(replace(batch(own), positions={(TOPIC, at): 4}))
    assert state_digest(mixed, SUBJECTS) == state_digest(apart, SUBJECTS)
    assert mixed.positions == {(TOPIC, at): 4 for at in range(3)}


def history(state: State, subject: str, n: int | None = None) -> list[str]:
    (row,) = state.find_users([subject])
    return [edge[0] for edge in edges_of(state.histories([row], n), 0, state.items.id_of)]


def top(state: State) -> list[str]:
    return [state.items.id_of(row) for row in state.popularity.top()]


@given(log=log_of_lines)
def test_what_is_reported_of_a_batch_names_its_events_users_items_and_predecessors(log):
    state, previous = new_state(), {}
    for at in range(0, len(log), 6):
        part = log[at : at + 6]
        result = state.fold(batch(part))
        assert sorted(result.event.tolist()) == list(range(len(part)))
        for event, user, item, before in zip(
            *(column.tolist() for column in (result.event, result.user, result.item, result.previous)), strict=True
        ):
            line = part[event]
            key = (line.partition, line.user, "" if line.user else line.session)
            partition, placed, local = state.home_of(user)
            assert partition == line.partition
            assert placed.slice.users.id_of(local) == subject_key(line.user, line.session)
            assert state.items.id_of(item) == line.item
            session, last = previous.get(key, (None, None))
            assert (state.items.id_of(before) if before >= 0 else None) == (last if session == line.session else None)
            previous[key] = line.session, line.item
    assert state.positions == {
        (TOPIC, partition): sum(line.partition == partition for line in log)
        for partition in {line.partition for line in log}
    }
    assert len(state.users()) == state.user_count == len({(line.partition, line.user or line.session) for line in log})


@given(log=log_of_lines)
def test_a_history_joins_every_partition_and_the_anonymous_sessions_once(log):
    state = folded(log)
    for subject in SUBJECTS:
        (row,) = state.find_users([subject])
        if row < 0:
            assert not any(subject_key(line.user, line.session) == subject for line in log)
            continue
        own = [line for line in log if subject_key(line.user, line.session) == subject]
        # Latest four named sessions of the subject in each partition, by the starts of sessions.
        linked = set()
        for partition in range(3):
            names = [line.session for line in own if line.partition == partition]
            starts = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
            linked |= {subject_key("", name) for name in starts[-4:]}
        sources: dict[tuple[int, str], list[Line]] = {}
        for line in log:
            key = subject_key(line.user, line.session)
            if key == subject or key in linked:
                sources.setdefault((line.partition, key), []).append(line)
        read = [line for lines in sources.values() for line in lines[-HISTORY:]]
        got = edges_of(state.histories([row]), 0, state.items.id_of)
        assert len(got) == min(HISTORY, len(read))
        if len(sources) == 1:
            assert [edge[:3] for edge in got] == [(line.item, line.time_ms, line.kind) for line in read]
        else:
            times = sorted(line.time_ms for line in read)[-HISTORY:]
            assert [edge[1] for edge in got] == times
            every = [(line.item, line.time_ms, line.kind) for line in read]
            for edge in got:  # each edge is there as often as there was an event
                every.remove(edge[:3])


def test_a_user_in_two_partitions_is_found_where_the_newest_event_is_and_read_from_both():
    state = folded([Line("ann", "", "x", time_ms=5, partition=2), Line("ann", "", "y", time_ms=3, partition=0)])
    assert [state.home_of(row)[0] for row in state.find_users(["ann"])] == [2]
    assert history(state, "ann") == ["y", "x"]
    assert history(state, "ann", 1) == ["x"]


def test_an_anonymous_session_joins_the_history_of_the_user_who_signs_in_also_in_another_partition():
    anonymous = [Line("", "s1", "x", time_ms=1, partition=1), Line("", "s1", "y", time_ms=2, partition=1)]
    state = folded(anonymous)
    assert history(state, subject_key("", "s1")) == ["x", "y"]
    state.fold(batch([Line("ann", "s1", "z", time_ms=3, partition=0)]))
    assert history(state, "ann") == ["x", "y", "z"]
    assert history(state, subject_key("", "s1")) == ["x", "y"]
    state.fold(batch([Line("", "s1", forget=True, partition=1, offset=2)]))
    assert history(state, "ann") == ["z"]


def test_a_session_that_a_user_comes_back_to_is_joined_once():
    lines = [Line("", "s1", "x", time_ms=1), *(Line("ann", f"s{at % 2}", "y", time_ms=2 + at) for at in range(4))]
    assert history(folded(lines), "ann") == ["x", "y", "y", "y", "y"]
    both = [Line("", "s1", "x", time_ms=1, partition=1), Line("", "s1", "y", time_ms=2, partition=2)]
    assert history(folded(both), subject_key("", "s1")) == ["x", "y"]


@settings(max_examples=25)
@given(log=log_of_lines, gone=st.integers(0, 2), back=st.booleans())
def test_a_dropped_partition_leaves_what_a_state_without_it_has_and_comes_back_whole(log, gone, back):
    rest = [line for line in log if line.partition != gone]
    items = [CatalogItem("x", "Milk"), CatalogItem("w", deleted=True)]
    state, without = new_state(), new_state()
    for at in range(0, len(log), 7):
        state.fold(batch(log[at : at + 7], items if at == 0 else []))
    without.fold(batch([], items if log else []))
    without.fold(batch(rest))
    whole = state_digest(state, SUBJECTS)
    if gone not in state.slices:
        return
    taken = state.slices[gone].slice
    state.drop(gone)
    assert state_digest(state, SUBJECTS) == state_digest(without, SUBJECTS)
    assert {name for name in state.items.ids() if name} == {name for name in without.items.ids() if name}
    if back:
        state.open(gone, taken)
        assert state_digest(state, SUBJECTS) == whole


def test_deleted_items_stay_out_of_the_ready_list_through_events_and_new_partitions():
    state = folded([Line("ann", "", "x"), Line("ann", "", "y")], [CatalogItem("y", deleted=True)])
    assert top(state) == ["x"]
    state.fold(batch([Line("bob", "", "y", partition=1)], [CatalogItem("z")]))
    assert sorted(top(state)) == ["x", "z"]
    state.drop(0)
    assert top(state) == ["z"]
    state.fold(batch([], [CatalogItem("y", "Milk")]))
    assert top(state) == ["y", "z"]


def test_an_item_whose_record_was_dropped_is_as_one_that_only_events_name_until_the_record_is_brought_back():
    state = new_state(max_items=2)
    state.fold(batch([], [CatalogItem("x", deleted=True), CatalogItem("y"), CatalogItem("z")]))
    state.fold(batch([Line("ann", "", "x")]))
    row = state.items.find(["x"]).numpy()
    assert len(state.catalog) == 2 and not state.catalog.deleted(row).any() and "x" in top(state)
    state.records.seek()
    changed = state.take_found([CatalogItem("x", deleted=True)])
    state.records.end_search(found=True)
    assert changed.catalog.tolist() == row.tolist()
    assert len(state.catalog) == 3 and state.catalog.deleted(row).all() and "x" not in top(state)


def test_the_row_of_a_gone_item_serves_another_that_is_shown():
    state = new_state(partitions=1, max_items=2)
    gone = []
    for at in range(12):
        gone += state.fold(batch([Line("ann", "", f"i{at}", offset=at, time_ms=at)])).catalog.tolist()
        assert set(top(state)) == {f"i{at}", f"i{at - 1}"} - {"i-1"}
        assert {name for name in state.items.ids() if name} == set(top(state))
    assert len(state.items) <= 3 and len(gone) == 10


@settings(max_examples=30)
@given(
    log=st.lists(
        st.tuples(
            st.just("ann"), st.just(""), st.sampled_from("abcdefg"), st.just(0), st.integers(0, 9), st.integers(0, 1)
        ).map(lambda columns: Line(*columns)),
        max_size=30,
    ).map(numbered),
    items=st.lists(st.builds(CatalogItem, st.sampled_from("abc"), deleted=st.booleans()), max_size=4),
    lengths=st.lists(st.integers(1, 12), max_size=6),
)
def test_the_process_knows_exactly_the_items_that_its_partitions_and_its_catalog_know(log, items, lengths):
    state, at = new_state(partitions=2, max_items=3), 0
    state.fold(batch([], items))
    for length in [*lengths, len(log)]:
        state.fold(batch(log[at : at + length]))
        at += length
        known = {name for name in state.items.ids() if name}
        recorded = {state.items.id_of(row) for row in state.catalog.rows()}
        assert known == recorded.union(*({*p.slice.items.ids()} - {None} for p in state.slices.values()))
        for placed in state.slices.values():
            for name in known:
                row = state.items.get(name)
                local = int(placed.local(np.array([row]))[0])
                assert placed.slice.items.get(name) == (local if local >= 0 else None)
        deleted = {name for name in known if state.catalog.deleted(np.array([state.items.get(name)]))[0]}
        assert deleted == {item.item_id for item in state_records(state) if item.deleted}
        assert set(top(state)) == known - deleted
        fresh = new_state(partitions=2, max_items=3)
        fresh.fold(Decoded(batch([]).events, state_records(state), (), {}))
        for partition, placed in state.slices.items():
            fresh.open(partition, placed.slice)
        assert merged_digest(fresh, ["ann"]) == merged_digest(state, ["ann"])


def state_records(state: State) -> list[CatalogItem]:
    return state.catalog.records()


def test_forgetting_in_one_partition_leaves_the_others_as_they_are():
    lines = numbered([Line("ann", "", "x", partition=at % 2) for at in range(4)])
    state = folded(lines)
    held = slice_digest(state.slices[1].slice)
    (row,) = [row for row in state.people.rows_of("ann") if state.home_of(row)[0] == 0]
    result = state.fold(batch([Line("ann", "", forget=True, partition=0, offset=2)]))
    assert result.gone_users.tolist() == [row] and row not in state.users()
    assert slice_digest(state.slices[1].slice) == held
    assert history(state, "ann") == ["x", "x"]


def test_says_where_in_the_batch_those_events_are_that_forget_and_were_applied():
    lines = numbered([
        Line("ann", forget=True, partition=1),
        Line("ann", "", "x"),
        Line("ann", forget=True),
        Line("ann", "", "x", partition=1, event_id="1"),
        Line("ann", forget=True, partition=1, event_id="1"),
        Line("bob", forget=True, partition=1),
    ])  # fmt: skip
    state = new_state()
    assert state.fold(batch(lines)).forgot.tolist() == [2, 0, 5]
    assert state.fold(batch(lines)).forgot.tolist() == []


def test_an_empty_batch_changes_nothing():
    state = folded([Line("ann", "", "x")])
    held = state_digest(state, SUBJECTS)
    result = state.fold(batch([]))
    assert state_digest(state, SUBJECTS) == held
    assert all(len(getattr(result, name)) == 0 for name in ("event", "user", "item", "catalog", "gone_users"))


def test_decayed_counts_of_a_category_under_each_half_life_are_the_plain_sums_over_all_partitions():
    state = new_state()
    log = [Line("ann", "", "xyz"[at % 3], time_ms=at * HOUR_MS, partition=at % 2, offset=at // 2) for at in range(60)]
    state.fold(batch(log, [CatalogItem("x", categories=("red",)), CatalogItem("z", categories=("red",))]))
    rows = torch.from_numpy(state.catalog.members(["red"]))
    assert [state.items.id_of(row) for row in rows.tolist()] == ["x", "z"]
    for at, half_life_s in enumerate(state.half_lives_s):
        want = [sum(0.5 ** ((60 - hour) * 3600 / half_life_s) for hour in range(first, 60, 3)) for first in (0, 2)]
        got = state.decayed_counts(rows.numpy(), at)
        assert got[0] / got[1] == pytest.approx(want[0] / want[1], rel=1e-9)
