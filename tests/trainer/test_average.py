"""The mean of the weights, and that of a table of which each step moves only some rows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from trainer.average import Average

ROWS = 5
moves = st.lists(st.sets(st.integers(0, ROWS - 1)), max_size=12)


def tables() -> tuple[list[Parameter], list[Parameter]]:
    start = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1))
    both = [[Parameter(start.clone()), Parameter(torch.zeros(2))] for _ in range(2)]
    return both[0], both[1]


@given(moves)
def test_the_mean_of_rows_that_seldom_move_is_that_of_the_whole_table_at_each_step(steps: list[set[int]]) -> None:
    plain, by_rows = tables()
    want, got = Average(plain), Average(by_rows, by_rows[0])
    chance = torch.Generator().manual_seed(2)
    for moved in steps:
        rows = torch.tensor(sorted(moved), dtype=torch.int64)
        got.before_step(rows)
        change = torch.randn(len(rows), 3, generator=chance)
        with torch.no_grad():
            for table, other in (plain, by_rows):
                table[rows] += change
                other += 1
        want.update()
        got.update(rows)
        for one, expected in zip(got.copy(), want.copy(), strict=True):
            torch.testing.assert_close(one, expected)


def test_within_given_the_weights_are_the_mean_and_after_it_what_they_were() -> None:
    _, parameters = tables()
    average = Average(parameters, parameters[0])
    for step in range(3):
        rows = torch.tensor([step])
        average.before_step(rows)
        with torch.no_grad():
            parameters[0][rows] += 1
        average.update(rows)
    before, mean = [p.detach().clone() for p in parameters], average.copy()
    with average.given():
        assert all(torch.equal(p, one) for p, one in zip(parameters, mean, strict=True))
    assert all(torch.equal(p, one) for p, one in zip(parameters, before, strict=True))
