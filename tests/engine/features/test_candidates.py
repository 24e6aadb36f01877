from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.features.candidates import (
    ENTITY_BIT,
    FRIEND_BIT,
    HISTORY_BIT,
    INDEX_BIT,
    NEIGHBOR_BIT,
    POPULAR_BIT,
    Others,
    following_of,
    unite,
)
from engine.features.live import Askers, Rings
from engine.features.votes import read_voters
from engine.state.graph import Graph

USERS, ITEMS = 3, 8
events = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), max_size=40)


def graph_of(pairs: list[tuple[int, int]]) -> Graph:
    """Each user's events are one session."""
    graph = Graph.empty(history=6, neighbors=3, users=USERS, items=ITEMS)
    last: dict[int, int] = {}
    for at, (user, item) in enumerate(pairs):
        columns = [torch.tensor([value]) for value in (user, item, last.get(user, -1), at, 0)]
        graph.insert(*columns, torch.ones(1), torch.ones(1, dtype=torch.int32))
        last[user] = item
    return graph


def following(graph: Graph, sources: int) -> NDArray[np.int64]:
    users = np.arange(USERS)
    askers = Askers.of(users, graph.user_items.latest(torch.from_numpy(users)).arrays(), 0)
    return following_of(read_voters(askers, Rings.of(graph)), askers, Rings.of(graph), sources)


@given(
    pairs=events,
    index=st.lists(st.lists(st.integers(-1, ITEMS - 1), min_size=2, max_size=2), min_size=USERS, max_size=USERS),
    popular=st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=3),
    sources=st.integers(0, 12),
    related=st.none()
    | st.lists(st.lists(st.integers(-1, ITEMS - 1), min_size=3, max_size=3), min_size=2 * USERS, max_size=2 * USERS),
)
def test_every_item_once_with_all_its_sources(
    pairs: list[tuple[int, int]],
    index: list[list[int]],
    popular: list[int],
    sources: int,
    related: list[list[int]] | None,
) -> None:
    graph = graph_of(pairs)
    history = graph.user_items.latest(torch.arange(USERS))
    top, count = np.array(popular, np.int64), np.full(USERS, len(popular))
    friends, entities = (related[:USERS], related[USERS:]) if related else ([[]] * USERS, [[]] * USERS)
    more = Others.none(USERS)
    if related:
        more = Others(np.concatenate([friends, entities], axis=1), np.repeat([FRIEND_BIT, ENTITY_BIT], 3))
    followed = following(graph, sources)
    row, source = unite(np.array(index), history.row.numpy(), followed, top, count, more)
    for user in range(USERS):
        past = [item for u, item in pairs if u == user][-6:]
        next_items: list[int] = []
        for item in past[-sources:] if sources else []:
            next_items += [row for row in graph.item_next.latest(torch.tensor([item])).row[0].tolist() if row >= 0]
        expected: dict[int, int] = {}
        for bit, items in (
            (INDEX_BIT, [row for row in index[user] if row >= 0]),
            (HISTORY_BIT, past),
            (NEIGHBOR_BIT, next_items),
            (POPULAR_BIT, popular),
            (FRIEND_BIT, [row for row in friends[user] if row >= 0]),
            (ENTITY_BIT, [row for row in entities[user] if row >= 0]),
        ):
            for item in set(items):
                expected[item] = expected.get(item, 0) | bit
        rows = row[user].tolist()
        kept = [row for row in rows if row >= 0]
        assert rows == kept + [-1] * (len(rows) - len(kept))
        assert dict(zip(kept, source[user].tolist(), strict=False)) == expected
        assert len(kept) == len(expected)
        assert not source[user, len(kept) :].any()
        assert sorted(row for row in followed[user].tolist() if row >= 0) == sorted(next_items)


def test_no_source_at_all_gives_no_candidate() -> None:
    graph = graph_of([])
    history = graph.user_items.latest(torch.arange(USERS))
    none, nobody = np.zeros((USERS, 0), np.int64), np.zeros(USERS, np.int64)
    row, _ = unite(none, history.row.numpy(), following(graph, 2), none[0], nobody, Others.none(USERS))
    assert (row < 0).all()


def test_each_user_is_proposed_as_many_popular_items_as_asked_for() -> None:
    none = np.zeros((2, 0), np.int64)
    row, _ = unite(none, none, none, np.array([5, 3, 1]), np.array([1, 3]), Others.none(2))
    assert row.tolist() == [[5, -1, -1], [1, 3, 5]]
