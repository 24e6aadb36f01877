from __future__ import annotations

from engine.state.id_map import IdMap


def test_gives_rows_in_order_of_first_sight_and_finds_them_again():
    ids = IdMap()
    assert ids.add(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert ids.add(["c", "d"]).tolist() == [2, 3]
    assert ids.find(["a", "never", "d"]).tolist() == [1, -1, 3]
    assert [ids.id_of(row) for row in range(len(ids))] == ["b", "a", "c", "d"]
    assert ids.get("d") == 3 and ids.get("never") is None


def test_ids_that_differ_in_case_or_unicode_form_are_different():
    ids = IdMap()
    assert ids.add(["e\u0301", "\u00e9", "E\u0301"]).tolist() == [0, 1, 2]


def test_no_ids_give_no_rows():
    assert IdMap().add([]).shape == (0,)
