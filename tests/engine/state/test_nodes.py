"""Rows by id, within a limit, against a dict."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.state.nodes import Nodes


def added(nodes: Nodes, ids: list[str]) -> tuple[list[int], list[int]]:
    rows = nodes.find(ids)
    given = nodes.add(ids, rows)
    return rows.tolist(), given


def see(nodes: Nodes, rows: list[int], seen: list[int]) -> None:
    nodes.seen.put(torch.tensor(rows), torch.tensor(seen))


def test_gives_rows_in_order_of_first_sight_and_finds_them_again():
    nodes = Nodes(5)
    assert added(nodes, ["b", "a", "b", "c"]) == ([0, 1, 0, 2], [0, 1, 2])
    assert added(nodes, ["c", "d"]) == ([2, 3], [3])
    assert nodes.find(["a", "never", "d"]).tolist() == [1, -1, 3]
    assert list(nodes.ids()) == ["b", "a", "c", "d"]
    assert len(nodes) == nodes.rows == 4
    assert nodes.get("never") is None and nodes.id_of(3) == "d"


def test_ids_that_differ_in_case_or_unicode_form_are_different():
    nodes = Nodes(5)
    assert added(nodes, ["e\u0301", "\u00e9", "E\u0301", "\u00c9"])[0] == [0, 1, 2, 3]


def test_a_removed_row_goes_to_the_next_new_id_under_a_new_generation():
    nodes = Nodes(3)
    added(nodes, ["a", "b", "c"])
    see(nodes, [0, 1, 2], [1, 2, 3])
    assert nodes.remove(torch.tensor([0, 2])) == ["a", "c"]
    assert nodes.seen.data.tolist() == [0, 2, 0] and nodes.generation.data.tolist() == [1, 0, 1]
    assert list(nodes.ids()) == [None, "b", None] and len(nodes) == 1 and nodes.rows == 3
    assert nodes.find(["a", "c"]).tolist() == [-1, -1]
    rows, given_rows = added(nodes, ["d", "a"])
    assert sorted(rows) == [0, 2] and rows == given_rows
    assert nodes.rows == 3 and not nodes.free


@given(
    seen=st.lists(st.integers(1, 10_000), unique=True, min_size=1, max_size=200),
    gone=st.sets(st.integers(0, 199)),
    limit=st.integers(1, 300),
)
def test_the_longest_idle_are_those_seen_longest_ago(seen, gone, limit):
    nodes = Nodes(max(limit, len(seen)))
    added(nodes, [str(at) for at in range(len(seen))])
    see(nodes, list(range(len(seen))), seen)
    gone = {row for row in gone if row < len(seen)}
    if len(gone) == len(seen):
        gone.pop()
    nodes.remove(torch.tensor(sorted(gone), dtype=torch.int64))
    alive = sorted((seen[row], row) for row in range(len(seen)) if row not in gone)
    share = max(1, nodes.limit // 64)
    assert nodes.longest_idle().tolist() == sorted(row for _, row in alive[:share])


@given(steps=st.lists(st.one_of(st.integers(0, 9), st.lists(st.integers(0, 9).map(str), max_size=4)), max_size=30))
def test_ids_and_rows_stay_one_to_one_through_adding_and_removing(steps):
    nodes, oracle, generation = Nodes(10), {}, [0] * 10
    for step in steps:
        if isinstance(step, int):
            row = oracle.pop(str(step), None)
            if row is not None:
                nodes.remove(torch.tensor([row]))
                generation[row] += 1
        else:
            rows, new = added(nodes, step)
            assert {oracle.setdefault(name, row) for name, row in zip(step, rows, strict=True)} == set(rows)
            assert set(new) <= set(rows)
        assert len(set(oracle.values())) == len(oracle) == len(nodes)
        assert {name: nodes.get(name) for name in map(str, range(10))} == {
            name: oracle.get(name) for name in map(str, range(10))
        }
        assert {row: nodes.id_of(row) for row in oracle.values()} == {row: name for name, row in oracle.items()}
        assert nodes.generation.data.tolist() == generation
        assert nodes.rows == len(nodes) + len(nodes.free) <= 10


def test_restored_ids_give_the_same_rows_as_those_that_were_saved():
    nodes, restored = Nodes(5), Nodes(5)
    added(nodes, ["a", "b", "c", "d"])
    nodes.remove(torch.tensor([1, 3]))
    restored.restore(list(nodes.ids()), list(nodes.free))
    for one in (nodes, restored):
        assert added(one, ["x", "c", "y", "z"]) == ([3, 2, 1, 4], [3, 1, 4])
    assert restored.find(["a", "b"]).tolist() == [0, -1]
    assert restored.find(["a", "z"]).dtype == np.int64
