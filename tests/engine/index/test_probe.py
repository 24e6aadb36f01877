"""RecallProbe: what it picks, and what it makes of two answers that are given to it."""

import numpy as np
import pytest

from engine.index.base import Hits
from engine.index.probe import RecallProbe


def queries(count):
    return np.arange(count, dtype=np.float32)[:, None]


def answer(*scores):
    return lambda query, k: Hits(np.arange(len(scores))[None], np.array([scores], np.float32))


def test_one_query_in_so_many_is_picked_and_given_out_once():
    probe = RecallProbe(5, 0)
    probe.offer(queries(4))
    assert probe.due() is None
    probe.offer(queries(3))
    assert probe.due() == [[2]]
    assert probe.due() is None
    probe.offer(queries(4))
    assert probe.due() is None
    probe.offer(queries(0))
    assert probe.due() is None


def test_none_is_picked_where_none_is_wanted():
    probe = RecallProbe(0, 0)
    probe.offer(queries(1000))
    assert probe.due() is None


def test_a_picked_query_does_not_change_with_its_batch():
    probe = RecallProbe(1, 0)
    batch = queries(2)
    probe.offer(batch)
    batch[:] = 7
    assert probe.due() == [[1]]


@pytest.mark.parametrize(("took_s", "rests_s"), [(0.001, 1.0), (0.05, 10.0)])
def test_two_are_an_interval_apart_or_longer_where_one_takes_long(took_s, rests_s):
    now_s = [100.0]
    probe = RecallProbe(1, 1.0, clock=lambda: now_s[0])

    def slow(query, k):
        now_s[0] += took_s
        return answer(1.0)(query, k)

    probe.offer(queries(1))
    probe.measure(probe.due(), answer(1.0), slow)
    probe.offer(queries(1))
    now_s[0] += rests_s - 0.01
    assert probe.due() is None
    now_s[0] += 0.02
    assert probe.due() is not None


def test_recall_counts_scores_that_the_exact_search_has_too():
    probe = RecallProbe(1, 0)
    assert np.isnan(probe.recall)
    probe.measure(queries(1), answer(0.9, 0.8, 0.5, 0.4), answer(0.9, 0.8, 0.7, 0.6))
    assert probe.recall == 0.5
    probe.measure(queries(1), answer(0.9, 0.6, -np.inf), answer(0.9, 0.6, -np.inf))  # the catalog has two items
    assert (probe.recall, probe.count) == (0.75, 2)
    probe.measure(queries(1), answer(-np.inf), answer(-np.inf))  # nothing to be found
    assert probe.count == 2


def test_it_is_low_after_twenty_that_find_too_little_with_the_graph_that_serves():
    probe = RecallProbe(1, 0)
    for _ in range(20):
        assert not probe.low(0.99)
        probe.measure(queries(1), answer(0.9, 0.1), answer(0.9, 0.8))
    assert probe.low(0.99)
    assert not probe.low(0.5)
    probe.begin_anew()
    assert not probe.low(0.99)
    assert probe.recall == 0.5
