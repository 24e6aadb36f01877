"""The ring against one bounded deque per node."""

from __future__ import annotations

from collections import defaultdict, deque

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.state.ring import Ring

SIZE, NODES = 3, 4
edges = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, 9)), max_size=20)


def insert(ring: Ring, batch: list[tuple[int, int]], clock: int) -> None:
    src, dst = (torch.tensor([edge[at] for edge in batch], dtype=torch.int64) for at in (0, 1))
    time_ms = torch.arange(clock, clock + len(batch))
    ring.insert(src, dst, time_ms, dst % 5, dst.float(), time_ms.to(torch.int32))


@given(batches=st.lists(edges, max_size=5))
def test_keeps_the_last_edges_of_each_node_in_order_with_their_features(batches):
    ring = Ring(SIZE, with_session=True)
    ring.grow(NODES)
    oracle = defaultdict(lambda: deque(maxlen=SIZE))
    clock = 0
    for batch in batches:
        insert(ring, batch, clock)
        for at, (src, dst) in enumerate(batch):
            oracle[src].append((dst, clock + at, dst % 5, float(dst), clock + at))
        clock += len(batch)
    latest = ring.latest(torch.arange(NODES))
    for node in range(NODES):
        kept = list(oracle[node])
        empty = SIZE - len(kept)
        assert latest.row[node].tolist() == [-1] * empty + [edge[0] for edge in kept]
        columns = (latest.row, latest.time_ms, latest.kind, latest.weight, latest.session)
        assert [tuple(column[node, at].item() for column in columns) for at in range(empty, SIZE)] == kept
        assert latest.mask[node].tolist() == [False] * empty + [True] * len(kept)


def test_a_hot_node_with_50_000_edges_in_one_batch_keeps_the_last():
    ring = Ring(SIZE)
    ring.grow(2)
    insert(ring, [(1, at) for at in range(50_000)], 0)
    assert ring.latest(torch.tensor([1, 0])).row.tolist() == [[49_997, 49_998, 49_999], [-1, -1, -1]]
    assert ring.degree[:2].tolist() == [0, 50_000]


def test_growth_keeps_what_is_there():
    ring = Ring(SIZE)
    ring.grow(1)
    insert(ring, [(0, 7)], 5)
    ring.grow(10_000)
    assert ring.latest(torch.tensor([0, 9_999])).row.tolist() == [[-1, -1, 7], [-1, -1, -1]]


def test_latest_n_are_the_newest_n():
    ring = Ring(SIZE)
    ring.grow(1)
    insert(ring, [(0, 1), (0, 2), (0, 3), (0, 4)], 0)
    assert ring.latest(torch.tensor([0]), 2).row.tolist() == [[3, 4]]
    assert ring.latest(torch.tensor([0])).last(1).row.tolist() == [[4]]


def test_a_clone_does_not_see_later_edges():
    ring = Ring(SIZE)
    ring.grow(1)
    insert(ring, [(0, 1)], 0)
    copy = ring.clone()
    insert(ring, [(0, 2)], 1)
    assert copy.latest(torch.tensor([0])).row.tolist() == [[-1, -1, 1]]
