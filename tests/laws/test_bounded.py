"""Law 7, for the state: with endless new ids every container stays within its limit, and what made room is counted."""

from __future__ import annotations

import pytest

from engine.config import EventsConfig, StateConfig
from engine.events.batch import CatalogItem
from engine.state.state import State
from tests.engine.logs import Line, batch

PARTITIONS, BATCH, BATCHES = 2, 30, 8
BLOCK = 8


def endless(number: int, partitions: int) -> list[Line]:
    """A batch in which nearly every user, session, item and event id is new, and one user and one item never are."""
    lines = []
    for at in range(number * BATCH, (number + 1) * BATCH):
        user, session, item = [
            (f"u{at}", f"s{at}", f"i{at}"),
            ("", f"s{at}", f"i{at}"),
            (f"u{at}", "", ""),
            ("", "", f"i{at}"),
            ("always", f"s{at}", f"i{at}"),
            (f"u{at}", "", "always"),
        ][at // partitions % 6]
        line = Line(user, session, item, at % 8, at * 1000, at % partitions, at // partitions, f"e{at}")
        if not item or not (user or session):
            line = line._replace(target=f"t{at}", kind=at % 3)
        lines.append(line)
    return lines


def catalog_records(number: int) -> list[CatalogItem]:
    return [
        # Every other one is of an item that the events of this batch name.
        CatalogItem(f"{'ci'[at % 2]}{at}", f"Title {at}", (f"category {at}",), (1.0,), deleted=at % 5 == 0)
        for at in range(number * BATCH, (number + 1) * BATCH)
    ]


@pytest.mark.parametrize("partitions", [1, PARTITIONS])
@pytest.mark.parametrize("max_items", [3, 7])
def test_every_container_stays_within_its_limit_and_evictions_are_counted(partitions, max_items):
    history, neighbors, window, max_users, relations, max_targets = 10, 3, 5, 4 * partitions, 2, 5
    config = StateConfig(
        max_users=max_users, max_items=max_items, history=history, neighbors=neighbors, duplicates_window=window,
        relations=relations, max_targets=max_targets, features_dim=1, content_dim=8, half_lives_s=(3600, 60),
    )  # fmt: skip
    state = State(config, EventsConfig(), partitions=partitions)
    users, items, targets = set(), set(), set()
    for number in range(BATCHES):
        lines = endless(number, partitions)
        state.fold(batch(lines, catalog_records(number)))
        users |= {(line.partition, line.user or line.session) for line in lines if line.user or line.session}
        items |= {(line.partition, line.item) for line in lines if line.item}
        targets |= {(line.partition, line.target) for line in lines if line.target}
        rows = max_items * (partitions + 1) + BATCH  # and the new items of one batch
        assert state.user_count <= max_users and int(state.users().max()) < max_users
        assert len(state.items) == len(state.items.ids()) <= rows and state.items.count <= rows
        assert len(state.catalog) == len(state.catalog.rows()) == state.records.used + max_items
        assert state.records.used <= max_items * partitions
        assert len(state.records._named) <= max_items * partitions
        assert {*state.records._wanted, *state.records._declined} <= state.records._named
        assert len(state.catalog.title) <= rows and len(state.catalog.categories) <= rows
        assert len(state.popularity.top()) <= config.popular
        for placed in state.slices.values():
            one = placed.slice
            assert len(one.users) <= one.users.rows <= 4 and len(one.items) <= one.items.rows <= max_items
            assert len(one.anonymous) <= 4 and one.session_users.rows <= 4
            assert len(one.relations.targets) <= one.relations.targets.rows <= max_targets
            assert len(one.recent_ids) <= window and len(one.recent_ids._known) <= window
            for ring, nodes, size in (
                (one.graph.user_items, 4, history),
                (one.graph.item_users, max_items, neighbors),
                (one.graph.item_next, max_items, neighbors),
                (one.relations.user_users, 4, relations),
                (one.relations.item_entities, max_items, relations),
                (one.relations.entity_items, max_targets, relations),
            ):
                assert ring.blocks - 1 <= nodes * -(-size // BLOCK) and len(ring.free) < ring.blocks
                assert all(len(table) <= len(table.data) for table, _ in ring.used(nodes).values())
            for name, (table, used) in one.tables().items():
                assert used <= len(table), name
    evicted_users = sum(placed.slice.evicted_users for placed in state.slices.values())
    evicted_items = sum(placed.slice.evicted_items for placed in state.slices.values())
    assert evicted_users >= len(users) - state.user_count > BATCH
    assert evicted_items >= len(items) - sum(len(placed.slice.items) for placed in state.slices.values()) > BATCH
    held = sum(len(placed.slice.relations.targets) for placed in state.slices.values())
    assert sum(placed.slice.evicted_targets for placed in state.slices.values()) >= len(targets) - held > BATCH
    assert state.events_folded == BATCH * BATCHES


def test_one_batch_may_name_more_items_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr("engine.state.state._ITEMS_IN_HAND", 1)
    config = StateConfig(max_users=2, max_items=2, content_dim=8)
    state = State(config, EventsConfig(), partitions=1)
    records = [CatalogItem(f"c{at}", f"Title {at}") for at in range(50)]
    state.fold(batch([Line(f"u{at}", "", f"i{at}", offset=at) for at in range(50)], records))
    assert [state.items.id_of(row) for row in state.catalog.rows()] == ["c48", "c49"]
    assert {name for name in state.items.ids() if name} == {"c48", "c49", "i48", "i49"}
    assert len(state.items) <= state.item_rows
    # And again where every row there may be is taken.
    state.fold(batch([], [CatalogItem(f"d{at}") for at in range(50)]))
    assert {name for name in state.items.ids() if name} == {"d48", "d49", "i48", "i49"}


def test_the_catalog_stays_within_its_memory_under_endless_large_records_and_keeps_what_events_name():
    config = StateConfig(max_users=8, max_items=1000, max_catalog_bytes=2**20, content_dim=8)
    state = State(config, EventsConfig(), partitions=1)
    attributes = (("description", "d" * 20_000),)
    state.fold(batch([Line("ann", "", "c0")], [CatalogItem("c0", "Title", attributes=attributes)]))
    sent = 1
    for number in range(BATCHES):
        records = [CatalogItem(f"c{sent + at}", "Title", attributes=attributes) for at in range(BATCH)]
        state.fold(batch([], records))
        sent += BATCH
        assert state.records.bytes <= config.catalog_bytes
        assert len(state.catalog) == len(state.records) <= config.catalog_bytes // 20_000
        assert state.records.evicted == sent - len(state.records)
        # The state gives the rows of evicted records back.
        assert len(state.items) <= len(state.records) + 1 + BATCH, number
    assert state.items.find(["c0"]).tolist()[0] in state.records
    assert state.records.evicted > BATCH
