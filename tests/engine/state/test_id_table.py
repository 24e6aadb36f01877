"""Rows by digest, against a dict: digests that want the same few slots, at the table's end too."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.state.id_table import IdTable

ROWS, SLOTS = 12, 32
# Digests are told apart by both words; the first alone says where a search begins.
HOMES = [0, 1, SLOTS - 2, SLOTS - 1]
DIGESTS = [(home + SLOTS * high, low) for home in HOMES for high in (0, -1) for low in (0, 7)]


def keys(digests: list[tuple[int, int]]) -> np.ndarray:
    return np.array(digests, np.int64).reshape(-1, 2)


@given(steps=st.lists(st.lists(st.sampled_from(DIGESTS), unique=True, max_size=5), max_size=40))
def test_rows_are_found_after_any_insertions_and_removals(steps):
    table, oracle, free = IdTable(ROWS), {}, list(range(ROWS))
    for step in steps:
        gone = [digest for digest in step if digest in oracle]
        table.remove(np.array([oracle[digest] for digest in gone], np.int64))
        free += [oracle.pop(digest) for digest in gone]
        new = [digest for digest in step if digest not in gone][: len(free)]
        given_rows = [free.pop() for _ in new]
        table.insert(keys(new), np.array(given_rows, np.int64))
        oracle.update(zip(new, given_rows, strict=True))
        rows, unknown = table.find(keys(DIGESTS))
        assert rows.tolist() == [oracle.get(digest, -1) for digest in DIGESTS]
        assert unknown == len(set(DIGESTS) - set(oracle))


def test_a_table_whose_rows_come_and_go_for_ever_has_empty_slots_left():
    table = IdTable(ROWS)
    rows = np.arange(ROWS)
    for turn in range(10 * SLOTS):
        found = keys([(turn * ROWS + at, turn) for at in range(ROWS)])
        table.insert(found, rows)
        assert table.find(found)[0].tolist() == rows.tolist()
        table.remove(rows)
    assert table.find(found)[0].tolist() == [-1] * ROWS
