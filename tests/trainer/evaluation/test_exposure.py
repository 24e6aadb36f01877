"""What lists show, against plain loops over lists."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.evaluation.logs import log_of
from trainer.evaluation.exposure import Exposure, gini

LOG = log_of([(0, 0, item, at) for at, item in enumerate([0, 0, 0, 1, 2, 2, 5])], items=12)
TRAIN = np.arange(6)  # item 5 has no event to train on
CATEGORIES = {"i0": ("a", "b"), "i1": ("b",), "i2": ("c", "b", "b"), "i3": (), "i5": ("a", "b"), "i11": ("c",)}
LISTS = st.lists(st.permutations([-1, 0, 1, 2, 3, 5, 11]), min_size=1, max_size=6)


def shown(lists: list[list[int]], k: int) -> list[int]:
    return [item for each in lists for item in each[:k] if item >= 0]


@given(lists=LISTS, k=st.integers(1, 7), cut=st.integers(0, 6))
def test_figures_are_what_loops_give_however_lists_are_batched(lists: list[list[int]], k: int, cut: int) -> None:
    exposure = Exposure(LOG, TRAIN, [k, 7], CATEGORIES)
    for part in (lists[:cut], lists[cut:]):
        rows = np.array(part, np.int32).reshape(-1, 7)
        exposure.add(rows, (rows >= 0) & (rows % 3 == 0))  # every third item was had before
    figures = exposure.figures()
    items = shown(lists, k)
    total = max(1, len(items))
    events = [3, 1, 2] + [0] * 9
    assert figures[f"coverage@{k}"] == pytest.approx(len(set(items)) / 12)
    assert figures[f"novelty@{k}"] == pytest.approx(-sum(math.log2((events[i] + 1) / (6 + 12)) for i in items) / total)
    by_popularity = [[0, 2], [1, 3], *([item] for item in range(4, 12))]
    want = [sum(item in part for item in items) / total for part in by_popularity]
    assert figures[f"exposure_by_decile@{k}"] == pytest.approx(want)
    assert figures[f"top_tenth@{k}"] == pytest.approx(want[0])
    assert figures[f"repeats@{k}"] == pytest.approx(sum(item % 3 == 0 for item in items) / total)

    means = []
    for each in lists:
        sets = [set(CATEGORIES.get(f"i{item}", ())) for item in each[:k] if item >= 0]
        pairs = [1 - len(a & b) / len(a | b) for a, b in combinations([one for one in sets if one], 2)]
        means += [sum(pairs) / len(pairs)] if pairs else []
    assert figures[f"diversity@{k}"] == pytest.approx(sum(means) / max(1, len(means)))
    share = dict.fromkeys("abc", 0.0)
    for item in items:
        own = set(CATEGORIES.get(f"i{item}", ()))
        for name in own:
            share[name] += 1 / len(own) / total
    assert figures[f"exposure_by_category@{k}"] == pytest.approx(share)


def test_more_than_64_categories_fit() -> None:
    categories = {f"i{item}": [f"c{at}" for at in range(item * 60, item * 60 + 80)] for item in range(3)}
    exposure = Exposure(LOG, TRAIN, [2], categories)
    exposure.add(np.array([[0, 1], [0, 2]], np.int32), np.zeros((2, 2), np.bool_))
    assert exposure.figures()["diversity@2"] == pytest.approx((1 - 20 / 140 + 1) / 2)


def test_without_categories_there_are_no_figures_of_them() -> None:
    for categories in (None, {}, {"i0": ()}):
        exposure = Exposure(LOG, TRAIN, [2], categories)
        exposure.add(np.array([[0, 1]], np.int32), np.zeros((1, 2), np.bool_))
        names = {"coverage", "novelty", "repeats", "gini", "top_tenth", "exposure_by_decile"}
        assert set(exposure.figures()) == {f"{name}@2" for name in names}


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_gini_is_the_mean_difference_over_twice_the_mean(counts: list[int]) -> None:
    difference = sum(abs(a - b) for a in counts for b in counts) / len(counts) ** 2
    mean = sum(counts) / len(counts)
    assert gini(np.array(counts)) == pytest.approx(difference / (2 * mean) if mean else 0.0, abs=1e-12)
