from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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


@given(steps=st.lists(st.one_of(st.integers(0, 5), st.lists(st.integers(0, 5).map(str), max_size=4)), max_size=30))
def test_a_row_taken_back_goes_to_a_later_id_and_the_rest_stay(steps):
    ids, oracle = IdMap(), {}
    for step in steps:
        if isinstance(step, int):
            row = oracle.pop(str(step), None)
            if row is not None:
                ids.remove(row)
        else:
            for name, row in zip(step, ids.add(step).tolist(), strict=True):
                assert oracle.setdefault(name, row) == row
        assert len(set(oracle.values())) == len(oracle) == ids.count
        assert list(ids.ids()) == [next((n for n, r in oracle.items() if r == row), "") for row in range(len(ids))]
        assert ids.find(map(str, range(6))).tolist() == [oracle.get(str(at), -1) for at in range(6)]
    assert len(ids) <= 6
