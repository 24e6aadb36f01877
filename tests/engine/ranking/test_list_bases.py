"""Where the bases of lists are kept; which of them a change concerns is in test_catalog_change.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.ranking.list_bases import ListBases
from engine.ranking.query import Basis, Query


def basis(user: str, candidates: int = 3, dim: int = 4) -> Basis:
    low = np.full(candidates, 0.25, np.float32)
    rows, vector = np.arange(candidates, dtype=np.int32), np.full(dim, 0.5, np.float32)
    return Basis(Query(user, "", 5), 7, rows, low, 2 * low, vector, 0.125, 3, 2, 50)


def kept(bases: ListBases) -> dict[str, int]:
    """Users, and how many candidates their lists weighed."""
    tables = {table.width: table for table in bases.tables()}
    return {query.user_id: int((tables[width].rows[slot] >= 0).sum()) for (width, slot), query in bases.places()}


def test_a_basis_is_kept_by_columns():
    bases = ListBases()
    width, slot = bases.put(basis("u1"))
    table = next(bases.tables())
    assert table.width == width and table.rows[slot, :4].tolist() == [0, 1, 2, -1]
    assert table.low[slot, :3].tolist() == [0.25] * 3 and table.high[slot, :3].tolist() == [0.5] * 3
    columns = (table.version, table.floor, table.scale, table.last, table.popular, table.modelled)
    assert [column[slot].item() for column in columns] == [7, 0.125, 3, 2, 50, True]
    assert table.vector[slot].tolist() == [0.5] * 4
    bases.put(replace(basis("u1"), vector=None), bases.put(basis("u1")))
    assert sorted(table.modelled[: len(table)].tolist()) == [False, True]


def test_streams_that_come_and_go_take_no_more_room_than_are_open_at_once():
    bases = ListBases()
    for turn in range(50):
        places = [bases.put(basis(f"u{turn}-{at}", 1 + 40 * at)) for at in range(8)]
        assert len(bases) == 8
        for place in places:
            bases.drop(place)
    assert len(bases) == 0 and sum(len(table) for table in bases.tables()) == 8


def test_lists_that_ask_for_categories_are_counted():
    bases = ListBases()
    filtered = replace(basis("u1"), query=Query("u1", "", 5, categories=("c1",)))
    place, other = bases.put(filtered), bases.put(filtered)
    (table,) = bases.tables()
    assert table.filtered == 2
    bases.put(basis("u1"), place)
    assert table.filtered == 1
    bases.put(filtered, place)
    bases.drop(other)
    assert table.filtered == 1


@pytest.mark.parametrize("candidates", [1, 64, 65, 2400])
def test_a_list_that_weighs_more_than_before_moves_and_one_that_weighs_less_leaves_nothing_behind(candidates):
    bases = ListBases()
    other = bases.put(basis("other", 60))
    place = bases.put(basis("u1", 60))
    place = bases.put(basis("u1", candidates), place)
    assert kept(bases) == {"other": 60, "u1": candidates}
    place = bases.put(basis("u1", 2), place)
    assert kept(bases) == {"other": 60, "u1": 2}
    bases.drop(other)
    assert kept(bases) == {"u1": 2}


def test_a_model_of_another_width_takes_the_place_of_the_one_before():
    bases = ListBases()
    first, second = bases.put(basis("u1")), bases.put(basis("u2"))
    bases.put(basis("u1", dim=6), first)
    table = next(bases.tables())
    assert table.vector[first.slot].tolist() == [0.5] * 6
    bases.put(basis("u2", dim=6), second)
    assert table.vector[: len(table)].tolist() == [[0.5] * 6] * 2
