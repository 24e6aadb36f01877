"""Tills and pace: order, fairness and completeness."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deploy.demo.data import Purchases
from deploy.demo.replay import Pace, Tills, first_households


def _purchases(baskets: Sequence[tuple[int, int]]) -> Purchases:
    """One row per purchase, from (household, number of purchases) per basket; products count up from 0."""
    household = np.repeat([who for who, _ in baskets], [size for _, size in baskets])
    basket = np.repeat(np.arange(len(baskets)), [size for _, size in baskets])
    rows = np.arange(len(basket))
    return Purchases(household, basket, rows, np.ones_like(rows), rows)


def test_open_baskets_take_turns_and_a_free_till_takes_the_next_in_line() -> None:
    rows = [sale.row for sale in Tills(_purchases([(1, 2), (2, 4), (3, 1), (4, 2)]), tills=2)]
    #      basket 0: rows 0-1, basket 1: rows 2-5, basket 2: row 6, basket 3: rows 7-8
    assert rows == [0, 2, 1, 3, 6, 4, 7, 5, 8]


def test_a_household_is_at_one_till_at_a_time() -> None:
    sales = [(sale.basket.household, sale.row) for sale in Tills(_purchases([(1, 2), (1, 2), (2, 3), (3, 1)]), tills=2)]
    # Household 2 goes first at the second till; household 1's second basket follows its first one.
    assert sales == [(1, 0), (2, 4), (1, 1), (2, 5), (1, 2), (2, 6), (1, 3), (3, 7)]


@given(
    baskets=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=25),
    tills=st.integers(1, 8),
)
def test_every_purchase_is_sold_once_and_those_of_a_basket_in_order(baskets: list[tuple[int, int]], tills: int) -> None:
    purchases = _purchases(baskets)
    sales = list(Tills(purchases, tills))
    assert sorted(sale.row for sale in sales) == list(range(len(purchases)))
    for basket in range(len(baskets)):
        rows = [sale.row for sale in sales if purchases.basket[sale.row] == basket]
        assert rows == sorted(rows)
        closing = [sale.row for sale in sales if sale.closes and purchases.basket[sale.row] == basket]
        assert closing == rows[-1:]
    # Those of one household never overlap.
    for household in {who for who, _ in baskets}:
        order = [purchases.basket[sale.row] for sale in sales if sale.basket.household == household]
        assert sum(a != b for a, b in pairwise(order)) == len(set(order)) - 1


def test_households_are_named_in_the_order_in_which_they_appear() -> None:
    assert first_households(_purchases([(9, 2), (3, 1), (9, 1), (5, 1), (1, 1)]), limit=3) == [9, 3, 5]


def test_the_pace_is_kept_without_drift() -> None:
    pace = Pace(rate=100.0, now=50.0)
    # Every call comes 3 ms late; the delays make up for it.
    delays = [pace.delay(50.0 + step * 0.01 + 0.003) for step in range(200)]
    assert all(abs(delay + 0.003) < 1e-9 for delay in delays)


def test_after_a_pause_events_are_not_flooded() -> None:
    pace = Pace(rate=100.0, now=0.0)
    pace.delay(0.0)
    delays = [pace.delay(5.0) for _ in range(3)]
    assert [round(delay, 6) for delay in delays] == [0.0, 0.01, 0.02]
