"""Several partitions read as one graph, against a sort of all edges by time and partition."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.state.merged import newest
from engine.state.ring import Neighbors
from engine.state.state import State
from tests.engine.logs import Line, batch, numbered
from tests.engine.state.digests import edges_of

PARTITIONS, HISTORY, NEIGHBORS = 3, 5, 3
USERS, ITEMS = ["ann", "bob", "cid"], [*"xyz"]
log_of_lines = st.lists(
    st.tuples(
        st.sampled_from(USERS), st.just("s"), st.sampled_from(ITEMS), st.integers(0, 7), st.integers(0, 6),
        st.integers(0, PARTITIONS - 1),
    ).map(lambda columns: Line(*columns)),
    max_size=40,
).map(numbered)  # fmt: skip


def folded(log: list[Line]) -> State:
    config = StateConfig(max_users=30, max_items=9, history=HISTORY, neighbors=NEIGHBORS, content_dim=8)
    state = State(config, EventsConfig(), partitions=PARTITIONS)
    for at in range(0, len(log), 7):
        state.fold(batch(log[at : at + 7]))
    return state


def one_row(edges, state: State, name: str) -> list[tuple]:
    (row,) = state.items.find([name]).tolist()
    return [] if row < 0 else [edge[:3] for edge in edges_of(edges.latest(torch.tensor([row])), 0, str)]


def merged(edges: dict[int, list[tuple]], size: int) -> list[tuple]:
    """(partition -> edges, oldest first) to the newest `size` by time, then by partition."""
    kept = [(time_ms, partition, at, edge) for partition, found in edges.items()
            for at, (time_ms, edge) in enumerate(found[-size:])]  # fmt: skip
    return [edge for *_, edge in sorted(kept)[-size:]]


@given(log=log_of_lines)
def test_an_items_newest_users_and_successors_come_from_all_partitions(log):
    state = folded(log)
    users, follows = (defaultdict(lambda: defaultdict(list)) for _ in range(2))
    previous: dict[tuple[int, str], str] = {}
    for line in log:
        users[line.item][line.partition].append((line.time_ms, (line.user, line.time_ms, line.kind)))
        before = previous.get((line.partition, line.user))
        if before is not None:
            follows[before][line.partition].append((line.time_ms, (line.item, line.time_ms, line.kind)))
        previous[line.partition, line.user] = line.item
    owner = {str(placed.first_user + row): name for placed in state.slices.values()
             for row, name in enumerate(placed.slice.users.ids())}  # fmt: skip
    name_of = {str(row): name for row, name in enumerate(state.items.ids())}
    several = len(state.slices) > 1
    for item in ITEMS:
        for graph, oracle, names in (
            (state.graph.item_users, users, owner),
            (state.graph.item_next, follows, name_of),
        ):
            got = [(names[row], *rest) for row, *rest in one_row(graph, state, item)]
            parts = oracle[item]
            want = merged(parts, NEIGHBORS) if several else [edge for p in parts.values() for _, edge in p[-NEIGHBORS:]]
            assert got == want


@given(log=log_of_lines)
def test_what_is_read_of_a_node_does_not_depend_on_which_others_are_read_with_it(log):
    state = folded(log)
    rows = torch.arange(len(state.items))
    for edges in (state.graph.item_users, state.graph.item_next):
        together = edges.latest(rows)
        for row in rows.tolist():
            assert edges_of(edges.latest(rows[row : row + 1]), 0, str) == edges_of(together, row, str)
    users = state.users()
    together = state.graph.user_items.latest(users)
    for at in range(len(users)):
        alone = state.graph.user_items.latest(users[at : at + 1])
        assert edges_of(alone, 0, str) == edges_of(together, at, str)


@given(log=log_of_lines, asked=st.sets(st.sampled_from(ITEMS)))
def test_naming_finds_whoever_reads_one_of_the_rows(log, asked):
    state = folded(log)
    rows = torch.tensor([row for row in state.items.find(sorted(asked)).tolist() if row >= 0], dtype=torch.int64)
    everyone, items = state.users(), torch.arange(len(state.items))

    def readers(edges, nodes, of):
        latest = edges.latest(nodes)
        return {int(node) for at, node in enumerate(nodes) if set(latest.row[at].tolist()) & set(of.tolist())}

    assert set(state.graph.user_items.naming(rows).tolist()) == readers(state.graph.user_items, everyone, rows)
    # An item with more edges than are read names more than it reads.
    assert set(state.graph.item_next.naming(rows).tolist()) >= readers(state.graph.item_next, items, rows)
    assert set(state.graph.item_users.naming(everyone[:1]).tolist()) >= readers(
        state.graph.item_users, items, everyone[:1]
    )


@pytest.mark.parametrize("n", [1, 2, 9])
def test_of_equal_times_the_later_partition_is_the_newer(n):
    state = folded(
        numbered([Line("ann", "", "x", 0, 5, 2), Line("bob", "", "x", 0, 5, 0), Line("cid", "", "x", 0, 4, 1)])
    )
    latest = state.graph.item_users.latest(torch.tensor([0]), n)
    owners = {p.first_user: p.slice.users.id_of(0) for p in state.slices.values()}
    assert [owners[edge[0]] for edge in edges_of(latest, 0, int)] == ["cid", "bob", "ann"][-n:]


def test_edges_at_time_zero_are_edges():
    sets = Neighbors.none(3, 1, 1)
    sets.row[0] = 7
    assert newest(sets, 2).row.tolist() == [[-1, 7]]


def test_what_is_read_follows_the_slices_that_come_and_go():
    """Where the rings lie is kept from one reading to the next, as long as the slices are the same."""
    first = numbered([Line("ann", "s", "x", 0, time, 0) for time in range(3)])
    second = numbered([Line("bob", "s", "x", 0, 10 + time, 1) for time in range(2)])
    state = folded(first)
    assert len(one_row(state.graph.item_users, state, "x")) == 3
    before = state.decayed_counts_under([0], state.items.find(["x"]).numpy())[0, 0]
    state.fold(batch(second))
    users = [user for user, *_ in one_row(state.graph.item_users, state, "x")]
    assert len(set(users)) == 2 and len(users) == NEIGHBORS
    both = state.decayed_counts_under([0], state.items.find(["x"]).numpy())[0, 0]
    assert both > before > 0
    state.drop(0)
    assert len(one_row(state.graph.item_users, state, "x")) == 2
    assert 0 < state.decayed_counts_under([0], state.items.find(["x"]).numpy())[0, 0] < both
