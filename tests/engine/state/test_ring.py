"""The ring against one bounded deque per node."""

from __future__ import annotations

from collections import defaultdict, deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.state.ring import Neighbors, Ring
from engine.state.table import Table

NODES, TARGETS, BLOCK = 4, 5, 8
SIZES = [1, 3, 8, 11, 16]  # K: below, at and above one block, and no multiple of it
edges = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, TARGETS - 1)), max_size=30)


def insert(ring: Ring, batch: list[tuple[int, int]], clock: int) -> None:
    src, dst = (torch.tensor([edge[at] for edge in batch], dtype=torch.int64) for at in (0, 1))
    time_ms = torch.arange(clock, clock + len(batch))
    ring.insert(src, dst, time_ms, dst % 5, dst.float() / 3, time_ms.to(torch.int32))


def edge(dst: int, time_ms: int) -> tuple:
    return dst, time_ms, dst % 5, float(torch.tensor(dst / 3, dtype=torch.float32)), time_ms & 0xFFFF


def listed(edges: Neighbors, node: int) -> list[tuple]:
    """A node's edges, oldest first, after a look at what pads them."""
    there = edges.mask[node].tolist()
    count = sum(there)
    assert there == [False] * (len(there) - count) + [True] * count
    columns = [column[node].tolist() for column in edges.columns()]
    for column, empty in zip(columns, (-1, 0, 0, 0.0, 0), strict=True):
        assert column[: len(there) - count] == [empty] * (len(there) - count)
    return list(zip(*(column[len(there) - count :] for column in columns), strict=True))


def same(one: Neighbors, other: Neighbors) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one.columns(), other.columns(), strict=True))


def rings_of(ring: Ring) -> list[list[tuple]]:
    latest = ring.latest(torch.arange(NODES))
    return [listed(latest, node) for node in range(NODES)]


def blocks_in_use(ring: Ring) -> int:
    return ring.blocks - 1 - len(ring.free)


@pytest.mark.parametrize("size", SIZES)
@given(batches=st.lists(edges, max_size=6), clear=st.sets(st.integers(0, NODES - 1)))
def test_keeps_the_last_edges_of_each_node_in_order_with_their_features(size, batches, clear):
    ring = Ring(NODES, size)
    oracle = defaultdict(lambda: deque(maxlen=size))
    clock = 0
    for round_, batch in enumerate(batches):
        insert(ring, batch, clock)
        for at, (src, dst) in enumerate(batch):
            oracle[src].append(edge(dst, clock + at))
        clock += len(batch)
        if round_ == len(batches) // 2:  # blocks come back, and are used again by the later batches
            ring.clear(torch.tensor(sorted(clear), dtype=torch.int64))
            for node in clear:
                oracle.pop(node, None)
        assert rings_of(ring) == [list(oracle[node]) for node in range(NODES)]
        assert blocks_in_use(ring) == sum(-(-len(kept) // BLOCK) for kept in oracle.values())
        places = ring.block.data[ring.block.data > 0].tolist()
        assert len(set(places)) == len(places) and not set(places) & set(ring.free.tolist())


@given(batch=edges, count=st.lists(st.integers(0, 9), min_size=NODES, max_size=NODES))
def test_earlier_edges_are_those_without_the_newest(batch, count):
    ring = Ring(NODES, 8)
    insert(ring, batch, 0)
    earlier = ring.latest(torch.arange(NODES)).earlier(torch.tensor(count))
    for node, (kept, n) in enumerate(zip(rings_of(ring), count, strict=True)):
        assert listed(earlier, node) == kept[: max(0, len(kept) - n)]


def test_a_hot_node_with_50_000_edges_in_one_batch_keeps_the_last(monkeypatch):
    ring = Ring(2, 11)
    put = Table.put

    def put_distinct(table: Table, rows: torch.Tensor, values: torch.Tensor) -> None:
        assert len(rows.unique()) == len(rows)  # of two writes to one row any may win
        put(table, rows, values)

    monkeypatch.setattr(Table, "put", put_distinct)
    src, dst = torch.ones(50_000, dtype=torch.int64), torch.arange(50_000)
    ring.insert(src, dst, dst, dst % 5, dst.float())
    assert ring.latest(torch.tensor([1])).row.tolist() == [list(range(49_989, 50_000))]
    assert ring.latest(torch.tensor([0])).row.tolist() == [[-1] * 11]
    assert ring.degree.data.tolist() == [0, 50_000]
    ring.insert(src[:1], dst[:1], dst[:1], dst[:1], dst[:1].float())
    assert ring.latest(torch.tensor([1])).row.tolist() == [[*range(49_990, 50_000), 0]]


def test_latest_n_are_the_newest_n():
    ring = Ring(NODES, 11)
    insert(ring, [(0, 1), (0, 2), (0, 3), (0, 4)], 0)
    assert ring.latest(torch.tensor([0]), 2).row.tolist() == [[3, 4]]
    assert ring.latest(torch.tensor([0])).last(1).row.tolist() == [[4]]
    assert ring.latest(torch.tensor([0]), 99).row.shape == (1, 11)


@pytest.mark.parametrize("ordinal", [1, 0x7FFF, 0x8000, 0xFFFF, 0x1_0000, 0x1_0001, 2**31 - 1])
def test_session_ordinals_wrap_at_16_bits_and_touch_nothing_else(ordinal):
    generation = Table(TARGETS, dtype=torch.int32)
    generation.put(torch.tensor([2]), torch.tensor([0x1_FFFF], dtype=torch.int32))
    ring = Ring(NODES, 3, generation=generation)
    one = torch.tensor([1])
    ring.insert(one, one + 1, one, one, one.float(), torch.tensor([ordinal], dtype=torch.int32))
    assert listed(ring.latest(torch.tensor([1])), 0) == [(2, 1, 1, 1.0, ordinal & 0xFFFF)]


def test_the_latest_time_and_kind_there_may_be_survive():
    ring = Ring(1, 3)
    latest_ms = 253_402_300_799_999
    node = torch.tensor([0])
    ring.insert(node, node, torch.tensor([latest_ms]), torch.tensor([126], dtype=torch.int8), torch.tensor([0.1]))
    assert listed(ring.latest(node), 0) == [(0, latest_ms, 126, float(torch.tensor(0.1)), 0)]


@pytest.mark.parametrize("size", SIZES)
@given(batches=st.lists(edges, max_size=4), gone=st.sets(st.integers(0, TARGETS - 1)))
def test_edges_to_a_row_whose_generation_changed_are_gone_and_the_rest_moves_right(size, batches, gone):
    generation = Table(TARGETS, dtype=torch.int32)
    ring = Ring(NODES, size, generation=generation)
    oracle = defaultdict(lambda: deque(maxlen=size))
    clock = 0
    for round_, batch in enumerate(batches):
        insert(ring, batch, clock)
        for at, (src, dst) in enumerate(batch):
            oracle[src].append((edge(dst, clock + at), int(generation.data[dst])))
        clock += len(batch)
        if round_ == 1 and gone:
            rows = torch.tensor(sorted(gone))
            generation.put(rows, generation.data[rows] + 1)
    for node, kept in enumerate(rings_of(ring)):
        assert kept == [found for found, born in oracle[node] if born == generation.data[found[0]]]


@given(batches=st.lists(edges, max_size=4), row=st.integers(0, TARGETS - 1))
def test_scrub_removes_every_edge_to_a_row_and_leaves_its_slots_to_later_edges(batches, row):
    ring = Ring(NODES, 3)
    slots: dict[int, deque] = defaultdict(lambda: deque(maxlen=3))
    clock = 0
    for round_, batch in enumerate(batches):
        insert(ring, batch, clock)
        for at, (src, dst) in enumerate(batch):
            slots[src].append(edge(dst, clock + at))
        clock += len(batch)
        if round_ == 1:
            ring.scrub(row)
            assert not (ring.neighbor.data == row + 1).any()
            for node, kept in slots.items():
                slots[node] = deque([None if found and found[0] == row else found for found in kept], maxlen=3)
    assert rings_of(ring) == [[found for found in slots[node] if found] for node in range(NODES)]


@given(
    batches=st.lists(edges, max_size=3), rows=st.sets(st.integers(0, 2 * TARGETS)), cleared=st.integers(0, NODES - 1)
)
def test_naming_finds_the_nodes_with_an_edge_to_any_of_the_rows(batches, rows, cleared):
    ring = Ring(NODES, 11)
    for batch in batches:
        insert(ring, batch, 0)
    ring.clear(torch.tensor([cleared]))
    want = [node for node, kept in enumerate(rings_of(ring)) if any(found[0] in rows for found in kept)]
    assert ring.naming(torch.tensor(sorted(rows), dtype=torch.int64)).tolist() == want


def test_a_cleared_node_leaves_no_trace_in_any_table():
    ring = Ring(NODES, 11)
    insert(ring, [(1, 1)] * 9 + [(2, 3)], 5)
    ring.clear(torch.tensor([1, 2]))
    for name, (table, _) in ring.used(NODES).items():
        assert not table.data.any(), name
    assert blocks_in_use(ring) == 0


def test_endless_inserting_and_clearing_takes_no_more_blocks_than_are_in_use_at_once():
    ring = Ring(NODES, 11)
    for clock in range(0, 3000, 30):
        insert(ring, [(at % NODES, 1) for at in range(30)], clock)
        ring.clear(torch.tensor([clock // 30 % NODES, (clock // 30 + 1) % NODES]))
    assert ring.blocks - 1 <= NODES * 2
    assert len(ring.free) <= NODES * 2


def test_a_restored_ring_goes_on_as_the_one_it_was_saved_from():
    ring, restored = Ring(NODES, 11), Ring(NODES, 11)
    insert(ring, [(0, 1)] * 20 + [(1, 2), (3, 3)], 0)
    ring.clear(torch.tensor([1]))
    restored.restore(ring.blocks, ring.free.copy())
    for name, (table, rows) in restored.used(NODES).items():
        table.data[:rows] = ring.used(NODES)[name][0].data[:rows]
    for one in (ring, restored):
        insert(one, [(2, 4), (0, 2), (1, 1), (3, 0)] * 9, 50)
    assert rings_of(ring) == rings_of(restored)
    assert blocks_in_use(ring) == blocks_in_use(restored)


@pytest.mark.parametrize("size", SIZES)
@given(batches=st.lists(edges, max_size=6), taken_back=st.sets(st.integers(0, TARGETS - 1)), n=st.integers(1, 20))
def test_tensor_operations_do_what_the_compiled_loops_do(size, batches, taken_back, n):
    generation = Table(TARGETS, dtype=torch.int32)
    compiled, tensors = Ring(NODES, size, generation=generation), Ring(NODES, size, generation=generation)
    tensors.degree.copy(0)  # while a table is being copied, its ring is written through its tables
    for batch in batches:
        insert(compiled, batch, 7)
        insert(tensors, batch, 7)
    rows = torch.tensor(sorted(taken_back), dtype=torch.int64)
    generation.put(rows, generation.get(rows) + 1)
    everyone = torch.arange(NODES)
    assert same(tensors.latest(everyone, n), compiled.latest(everyone, n))


def test_an_edge_without_a_source_is_left_out_either_way():
    for copying in (False, True):
        ring = Ring(NODES, 4)
        if copying:
            ring.degree.copy(0)
        insert(ring, [(1, 2), (-1, 3), (1, 4)], 0)
        assert [[edge[0] for edge in one] for one in rings_of(ring)] == [[], [2, 4], [], []]
