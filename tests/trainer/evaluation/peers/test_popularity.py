"""Decayed counts against adding up every event."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.evaluation.logs import log_of
from tests.trainer.evaluation.peers.cases import ITEMS, after_every_event, check_reads_nothing_else, logs, of_histories
from trainer.data.log import Events, Ints
from trainer.evaluation.peers import DecayedPopularity


@given(case=logs(), half_life=st.sampled_from([0.5, 3.0, math.inf]), parts=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_every_event_halves_with_each_half_life(case: tuple[Events, Ints], half_life: float, parts: int) -> None:
    log, train = case
    scorer = DecayedPopularity(half_life)
    scorer.fit(log, train)
    for later in np.array_split(np.arange(len(train), len(log)), parts):
        scorer.observe(later)
    moment = log.time if log.timed else np.arange(len(log))
    want = [0.0] * ITEMS
    for at in range(len(log)):
        want[log.item[at]] += 0.5 ** ((moment[-1] - moment[at]) / half_life)
    scores = scorer.score(after_every_event(log))
    assert scores.tolist() == [pytest.approx(want, rel=1e-5)] * len(log)


def test_without_a_half_life_a_24th_of_the_span_is_taken_and_none_of_an_order() -> None:
    rows = [(0, 0, 1, 0.0), (0, 0, 1, 0.0), (0, 0, 2, 240.0), (0, 0, 3, 230.0)]
    for timed, want in ((True, [0, 2 * 0.5**24, 1, 0.5, 0, 0]), (False, [0, 2, 1, 1, 0, 0])):
        log = log_of(sorted(rows, key=lambda row: row[3]), timed=timed)
        scorer = DecayedPopularity()
        scorer.fit(log, np.arange(4))
        assert scorer.score(of_histories([[0]]))[0].tolist() == pytest.approx(want)


def test_training_on_one_moment_or_on_nothing_is_no_error() -> None:
    log = log_of([(0, 0, 1, 5.0), (0, 0, 1, 5.0), (0, 0, 2, 9.0)])
    for train, want in ((np.arange(2), [0, 2, 1, 0, 0, 0]), (np.arange(0), [0, 0, 1, 0, 0, 0])):
        scorer = DecayedPopularity()
        scorer.fit(log, train)
        scorer.observe(np.array([2]))
        assert scorer.score(of_histories([[0]]))[0].tolist() == want


def test_fitting_again_forgets() -> None:
    log = log_of([(0, 0, 1, 0.0), (0, 0, 2, 1.0)])
    scorer = DecayedPopularity()
    scorer.fit(log, np.array([0]))
    scorer.fit(log, np.array([1]))
    assert scorer.score(of_histories([[0]]))[0].tolist() == [0, 0, 1, 0, 0, 0]


def test_reads_nothing_but_what_it_was_given() -> None:
    check_reads_nothing_else(DecayedPopularity(), DecayedPopularity())


@pytest.mark.parametrize("half_life", [0.0, -1.0, math.nan])
def test_a_half_life_that_is_none_is_refused(half_life: float) -> None:
    with pytest.raises(ValueError, match="half_life must be > 0"):
        DecayedPopularity(half_life)
