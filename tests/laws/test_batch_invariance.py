"""Law 1: any cutting of one log into batches, and any order in which its partitions are read, folds to the same state.

Also the heart of law 2: so does any log that is read on from a copy, also one that was made while folding went on.

The catalog among it is what the log says once the records are brought back that were dropped before events named their
items. An engine does that when it has caught up (`engine/catalog_recall.py`), and may have done so at any time before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog_recall import Newest
from engine.config import Config, EventsConfig, StateConfig
from engine.events.batch import CatalogItem, Decoded, QuotedTombstone
from engine.state.slice import SavedSlice, Slice
from engine.state.state import State
from engine.state.subjects import subject_key
from tests.engine.logs import HOUR_MS, Line, batch, cut, numbered
from tests.engine.state.digests import state_digest

PARTITIONS, ITEMS_PARTITIONS = 3, 2
RESTART, RECALL = "restart", "recall"
ROOMY = {"max_users": 64 * PARTITIONS, "max_items": 64, "max_targets": 64, "duplicates_window": 64}
TIGHT = {"max_users": 3 * PARTITIONS, "max_items": 3, "max_targets": 3, "duplicates_window": 3}
LIMITS = [ROOMY, TIGHT, TIGHT | {"duplicates_window": 0}, TIGHT | {"max_items": 1}]
USERS, SESSIONS, ITEMS = ["", "ann", "Ann", "bob", "cid", "dan"], ["", "s1", "s2", "s3"], [*"stuvwxyz"]
L = TypeVar("L", Line, CatalogItem)
SUBJECTS = [*USERS[1:], *(subject_key("", session) for session in SESSIONS[1:])]


def relation(user, item, target, kind, time_ms, partition, event_id, ends) -> Line:
    """A relation of `user` to another user or, where there is none, of `item` to an entity."""
    user = "" if user == target else user
    number = [*EventsConfig().relations].index(kind)
    event = Line(user, "", "" if user else item, number, time_ms, partition, 0, event_id, 1.0 + number)
    return event._replace(target=target, ends=ends)


def line(user, session, item, kind, time_ms, partition, event_id, forget) -> Line:
    session = session or ("" if user else "s1")
    return Line(user, session, "" if forget else item, kind, time_ms, partition, 0, event_id, 1.0 + kind, forget)


times = st.sampled_from([0, 5, 1000 * HOUR_MS]) | st.integers(0, 100 * HOUR_MS)
event_ids = st.sampled_from(["", "e1", "e2", "e3", "e4", "e5"])
interactions = st.builds(
    line,
    st.sampled_from(USERS),
    st.sampled_from(SESSIONS),
    st.sampled_from(ITEMS),
    st.integers(0, 7),
    times,
    st.integers(0, PARTITIONS - 1),
    event_ids,
    st.sampled_from([False] * 7 + [True]),
)
relations = st.builds(
    relation,
    st.sampled_from(USERS),
    st.sampled_from(ITEMS),
    st.sampled_from(["ann", "bob", "x", "Ford"]),  # an entity, a user and an item of one name are three
    st.sampled_from([*EventsConfig().relations]),
    times,
    st.integers(0, PARTITIONS - 1),
    event_ids,
    st.sampled_from([False] * 3 + [True]),
)
lines = st.lists(interactions | relations, max_size=25).map(numbered)


def records_of(names: Sequence[str]) -> st.SearchStrategy[CatalogItem]:
    return st.builds(
        CatalogItem,
        st.sampled_from(names),
        st.sampled_from(["", "Milk"]),
        deleted=st.booleans(),
        attributes=st.sampled_from([(), (("price", "9.99"),)]),
    )


def placed(records: Sequence[CatalogItem]) -> list[CatalogItem]:
    """The records in the items topic: all those of an item, its tombstones among them, in one partition."""
    ends = [0] * ITEMS_PARTITIONS
    found = []
    for one in records:
        partition = ord(one.item_id.strip('"')) % ITEMS_PARTITIONS
        found.append(replace(one, offset=ends[partition], partition=partition))
        ends[partition] += 1
    return found


# Some tombstones name "v" or the item whose literal id has the quotes: whichever the catalog has a record of by then.
quoted_tombstones = st.sampled_from("vw").map(lambda name: QuotedTombstone(f'"{name}"', deleted=True, named_id=name))
items = st.lists(records_of(["v", "w", "x", '"v"', '"w"']) | quoted_tombstones, max_size=8).map(placed)
# A full catalog may have dropped an item whose literal id has the quotes, and then nobody knows which one is meant.
many_items = st.lists(records_of([*"stuvwxyz"]) | quoted_tombstones, max_size=16).map(placed)
# One step: how many records of each partition come in a batch, how many of them were there already, how many of each
# partition of the catalog, and what comes before: the state is saved and restored, or records are brought back.
step = st.tuples(
    st.lists(st.integers(0, 6), min_size=PARTITIONS, max_size=PARTITIONS),
    st.integers(0, 3),
    st.lists(st.integers(0, 2), min_size=ITEMS_PARTITIONS, max_size=ITEMS_PARTITIONS),
    st.sampled_from(["", "", RESTART, RECALL]),
)


def new_state(limits: dict) -> State:
    config = StateConfig(
        history=4, neighbors=3, relations=2, session_gap_s=1800, half_lives_s=(3600, 60), content_dim=8,
        max_session_users=2, **limits,
    )  # fmt: skip
    return State(config, EventsConfig(), partitions=PARTITIONS)


def ids_of(one: Slice) -> list[list[str | None]]:
    return [list(nodes.ids()) for nodes in (one.users, one.items, one.relations.targets)]


def saved(one: Slice) -> SavedSlice:
    tables = {name: table.data[:rows].clone() for name, (table, rows) in one.tables().items()}
    return one.save(tables, *ids_of(one))


def restored(limits: dict, slices: dict[int, SavedSlice], before: State | None = None) -> State:
    """A state of these slices, and of the catalog that a state had before."""
    state = new_state(limits)
    for partition, one in slices.items():
        fresh = state.new_slice()
        fresh.restore(one)
        state.open(partition, fresh)
    if before is not None:
        used, dropped = before.records.used, before.records.dropped
        state.restore_catalog(before.catalog.records(), {}, before.items_folded, used=used, dropped=dropped)
    return state


def restarted(limits: dict, state: State) -> State:
    slices = {partition: saved(placed.slice) for partition, placed in state.slices.items()}
    return restored(limits, slices, state)


def recall(state: State, catalog: Sequence[CatalogItem]) -> None:
    """Brings back what the state lacks of the items topic, which was folded so far."""
    newest = Newest(Config(), frozenset(state.items.id_of(row) for row in state.records.seek()), {})
    for one in catalog:
        newest.note_item(one)
    state.take_found([*newest.found().values()])
    state.records.end_search(found=True)


def by_partition(log: Sequence[L], partitions: int = PARTITIONS) -> list[list[L]]:
    return [[one for one in log if one.partition == partition] for partition in range(partitions)]


def batches(
    log: Sequence[Line], catalog: Sequence[CatalogItem], steps: Sequence[tuple]
) -> Iterator[tuple[Decoded, str]]:
    """The log as the steps cut it, and what comes before each batch; what is left over comes last, in one batch."""
    parts, at = by_partition(log), [0] * PARTITIONS
    records, done = by_partition(catalog, ITEMS_PARTITIONS), [0] * ITEMS_PARTITIONS
    rest = ([len(log)] * PARTITIONS, 0, [len(catalog)] * ITEMS_PARTITIONS, "")
    for counts, again, more, first in [*steps, rest]:
        rows: list[list[Line]] = []
        for partition, count in enumerate(counts):
            rows.append(parts[partition][max(0, at[partition] - again) : at[partition] + count])
            at[partition] = min(len(parts[partition]), at[partition] + count)
        mixed = [row[place] for place in range(len(log)) for row in rows if place < len(row)]
        told = [one for part, begin, n in zip(records, done, more, strict=True) for one in part[begin : begin + n]]
        yield batch(mixed, told), first
        done = [begin + n for begin, n in zip(done, more, strict=True)]


def one_by_one(limits: dict, log: Sequence[Line], catalog: Sequence[CatalogItem]) -> State:
    state = new_state(limits)
    for records in by_partition(catalog, ITEMS_PARTITIONS):
        for item in records:
            state.fold(batch([], [item]))
    for part in by_partition(log):
        for one in part:
            state.fold(batch([one]))
    recall(state, catalog)
    return state


@pytest.mark.parametrize("limits", LIMITS)
@settings(max_examples=50)
@given(data=st.data(), log=lines, steps=st.lists(step, max_size=8))
def test_any_cutting_interleaving_redelivery_and_restart_folds_to_the_same_state(limits, data, log, steps):
    catalog = data.draw(items if limits is ROOMY else many_items)
    state, folded = new_state(limits), []
    for part, first in batches(log, catalog, steps):
        if first == RESTART:
            state = restarted(limits, state)
        elif first == RECALL:
            recall(state, folded)
        state.fold(part)
        folded += part.items
    recall(state, catalog)
    want = one_by_one(limits, log, catalog)
    assert state_digest(state, SUBJECTS) == state_digest(want, SUBJECTS)
    if limits is not ROOMY:
        assert {one.item_id for one in want.catalog.records()} == kept_of(limits, want, catalog)


def kept_of(limits: dict, state: State, catalog: Sequence[CatalogItem]) -> set[str]:
    """Whose records are kept: the items updated last, and those that events name."""
    updated = {one.named_id if isinstance(one, QuotedTombstone) else one.item_id: one for one in catalog}
    last = sorted(updated, key=lambda name: (updated[name].offset, updated[name].partition))[-limits["max_items"] :]
    named = {name for one in state.slices.values() for name in one.slice.items.ids() if name}
    return {*last} | (named & {*updated})


@pytest.mark.parametrize("limits", LIMITS)
@settings(max_examples=15)
@given(log=lines, steps=st.lists(step, max_size=8), begin=st.integers(0, 8), pieces=st.integers(1, 3))
def test_a_copy_made_in_pieces_while_folding_goes_on_is_the_state_at_its_begin(limits, log, steps, begin, pieces):
    state, at_begin = new_state(limits), None
    copies: dict[int, tuple] = {}
    walks: list[Iterator[int]] = []
    for number, (part, _) in enumerate(batches(log, [], steps)):
        if number == min(begin, len(steps)):
            for partition, placed in state.slices.items():
                tables = {name: table.copy(rows) for name, (table, rows) in placed.slice.tables().items()}
                one = placed.slice.save({}, *ids_of(placed.slice))
                copies[partition] = one, tables
                walks += [copy.pieces(1) for copy in tables.values()]  # pieces of one row
            at_begin = state_digest(restarted(limits, state), SUBJECTS)
        for walk in walks:
            for _ in range(pieces):
                next(walk, None)
        state.fold(part)
    for walk in walks:
        list(walk)
    slices = {
        partition: SavedSlice(
            {name: copy.data for name, copy in tables.items()},
            one.users, one.items, one.recent_ids, one.numbers, one.lists, one.targets,
        )
        for partition, (one, tables) in copies.items()
    }  # fmt: skip
    again = restored(limits, slices)
    assert state_digest(again, SUBJECTS) == at_begin
    for partition, part in enumerate(by_partition(log)):
        done = slices[partition].numbers["position"] if partition in slices else 0
        for one in part[done:]:
            again.fold(batch([one]))
    want = state_digest(one_by_one(limits, log, []), SUBJECTS)
    assert state_digest(again, SUBJECTS) == want
    assert state_digest(state, SUBJECTS) == want


def test_one_user_and_one_item_of_20_000_events_fold_alike_in_one_batch_and_in_many():
    rows = [("ann", "", "x" if at % 3 else "y", at % 8, at * 60_000) for at in range(20_000)]
    whole, parts = new_state(ROOMY), new_state(ROOMY)
    for one in cut(rows, []):
        whole.fold(one)
    for one in cut(rows, [1, 7, 999] * 20):
        parts.fold(one)
    assert state_digest(whole, SUBJECTS) == state_digest(parts, SUBJECTS)
