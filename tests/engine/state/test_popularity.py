"""Decayed popularity against the sum over all events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.state.popularity import Popularity

HALF_LIFE_S, ITEMS, TOP = 3600.0, 6, 3
HOUR_MS = 3_600_000
events = st.lists(
    st.tuples(st.integers(0, ITEMS - 1), st.integers(0, 50 * HOUR_MS), st.sampled_from([1.0, 2.0, 3.0])), max_size=15
)


def fold(popularity, batch):
    item, time_ms, weight = (np.array([event[at] for event in batch]) for at in range(3))
    popularity.fold(item.astype(np.int64), time_ms.astype(np.int64), weight.astype(np.float64))


@given(batches=st.lists(events, max_size=5))
def test_shares_and_top_equal_the_sum_over_all_events(batches):
    popularity = Popularity(HALF_LIFE_S, TOP)
    popularity.grow(ITEMS)
    for batch in batches:
        fold(popularity, batch)
    everything = [event for batch in batches for event in batch]
    newest = max((event[1] for event in everything), default=0)
    score = np.zeros(ITEMS)
    for item, time_ms, weight in everything:
        score[item] += weight * 2.0 ** ((time_ms - newest) / HOUR_MS)
    total = score.sum() or 1.0
    assert popularity.share() == pytest.approx(score / total, rel=1e-9)
    top = popularity.top().tolist()
    assert len(top) == TOP
    assert [score[row] for row in top] == pytest.approx(sorted(score, reverse=True)[:TOP], rel=1e-9)


@given(batch=events, cut=st.integers(0, 15), shift_halvings=st.integers(0, 200))
def test_scores_do_not_depend_on_the_cut_into_batches(batch, cut, shift_halvings):
    late = [(item, time_ms + shift_halvings * HOUR_MS, weight) for item, time_ms, weight in batch]
    whole, parts = Popularity(HALF_LIFE_S, TOP), Popularity(HALF_LIFE_S, TOP)
    for popularity, batches in ((whole, [batch + late]), (parts, [batch[:cut], batch[cut:], late[:cut], late[cut:]])):
        popularity.grow(ITEMS)
        for part in batches:
            fold(popularity, part)
    assert whole.score.tobytes() == parts.score.tobytes()
    assert whole.top().tolist() == parts.top().tolist()


def test_an_hour_old_event_counts_half():
    popularity = Popularity(HALF_LIFE_S, TOP)
    popularity.grow(2)
    fold(popularity, [(0, 0, 1.0), (1, HOUR_MS, 1.0)])
    assert popularity.share().tolist() == pytest.approx([1 / 3, 2 / 3])


def test_hidden_items_leave_the_top_and_come_back():
    popularity = Popularity(HALF_LIFE_S, 2)
    popularity.grow(3)
    fold(popularity, [(0, 0, 3.0), (1, 0, 2.0), (2, 0, 1.0)])
    popularity.hide(np.array([0]), np.array([True]))
    assert popularity.top().tolist() == [1, 2]
    fold(popularity, [(0, 0, 3.0)])
    assert popularity.top().tolist() == [1, 2]
    popularity.hide(np.array([0]), np.array([False]))
    assert popularity.top().tolist() == [0, 1]


def test_before_any_event_the_first_items_fill_the_top():
    popularity = Popularity(HALF_LIFE_S, 2)
    popularity.grow(3)
    assert popularity.top().tolist() == [0, 1]
    assert popularity.share().tolist() == [0, 0, 0]
