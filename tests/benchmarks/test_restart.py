"""What the benchmark of a restart holds the lists against."""

from __future__ import annotations

import numpy as np

from benchmarks.restart import next_baskets
from deploy.demo.data import Purchases


def test_the_first_basket_of_each_household_that_comes_first_is_what_it_buys_next():
    rows = [(1, 10, 100), (2, 20, 200), (1, 10, 101), (3, 30, 300), (1, 11, 102), (2, 20, 201), (3, 31, 301)]
    household, basket, product = np.array(rows).T
    purchases = Purchases(household, basket, product, np.ones_like(product), np.arange(len(rows)))
    assert next_baskets(purchases, 2) == {"1": {"100", "101"}, "2": {"200", "201"}}
    assert list(next_baskets(purchases, 9)) == ["1", "2", "3"]
