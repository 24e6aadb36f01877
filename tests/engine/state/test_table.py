"""Reserved tables, and copies of one moment taken while they are written."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.state.table import ReservationError, Table, reserve

ROWS = 6
# Put these values at these rows, or copy one more piece.
steps = st.lists(
    st.one_of(st.none(), st.dictionaries(st.integers(0, ROWS - 1), st.integers(-2, 2), min_size=1)), max_size=20
)


def filled(shape: tuple[int, ...]) -> Table:
    table = Table(ROWS, shape, dtype=torch.int64)
    table.put(torch.arange(ROWS), torch.arange(ROWS).view(-1, *[1] * len(shape)).expand(-1, *shape) + 100)
    return table


@pytest.mark.parametrize("shape", [(), (2,)])
@given(before=steps, during=steps, rows=st.integers(0, ROWS), piece_rows=st.integers(1, 4))
def test_a_copy_holds_the_rows_as_they_were_when_it_began(shape, before, during, rows, piece_rows):
    table = filled(shape)
    piece_bytes = piece_rows * table.data[:1].nbytes
    oracle = table.data.tolist()

    def put(step: dict[int, int]) -> None:
        at = torch.tensor(list(step))
        if set(step.values()) == {0}:
            table.clear(at)
            for row in step:
                oracle[row] = torch.zeros(shape, dtype=torch.int64).tolist()
            return
        values = torch.tensor(list(step.values())).view(-1, *[1] * len(shape)).expand(-1, *shape)
        table.put(at, values)
        for row, value in zip(step, values.tolist(), strict=True):
            oracle[row] = value

    for step in before:
        if step:
            put(step)
    want = list(oracle[:rows])
    copy = table.copy(rows)
    pieces = copy.pieces(piece_bytes)
    copied = 0
    for step in during:
        if step is None:
            copied += next(pieces, 0)
        else:
            put(step)
    copied += sum(pieces)
    assert copy.data.tolist() == want
    assert copied == rows * table.data[:1].nbytes
    assert table.data.tolist() == oracle


def test_a_copy_keeps_nothing_once_it_is_made_or_given_up():
    table = filled(())
    made = table.copy(ROWS)
    list(made.pieces(8))
    table.put(torch.tensor([0]), torch.tensor([1]))
    assert made.data[0] == 100 and made._kept == []
    given_up = table.copy(ROWS)
    table.end_copy()
    table.put(torch.tensor([0]), torch.tensor([2]))
    assert given_up._kept == []
    again = table.copy(ROWS)
    list(again.pieces(8))
    assert again.data[0] == 2


def test_reserved_rows_read_as_zero_before_they_are_written():
    table = reserve(1 << 30, (4,), torch.float64)  # 32 GiB of addresses
    assert table[[0, 1 << 29, (1 << 30) - 1]].tolist() == [[0.0] * 4] * 3
    table[-1] = 1
    assert table[-2:].sum() == 4


def test_a_reservation_that_no_machine_has_says_which_limits_to_lower():
    with pytest.raises(ReservationError, match=r"lower state\.max_users, state\.max_items"):
        reserve(1 << 50, (64,), torch.int64)
