"""Personal frequency against sorting tuples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.trainer.evaluation.logs import log_of
from tests.trainer.evaluation.peers.cases import ITEMS, after_every_event, check_reads_nothing_else, logs, of_histories
from trainer.data.log import Events, Ints
from trainer.evaluation.peers import DecayedPopularity, PersonalFrequency
from trainer.evaluation.ranked import rank


@given(case=logs())
@settings(max_examples=50, deadline=None)
def test_ranks_by_fading_counts_mixed_with_popularity(case: tuple[Events, Ints]) -> None:
    log, train = case
    scorer, popularity = PersonalFrequency(), DecayedPopularity()
    questions = after_every_event(log)
    for each in (scorer, popularity):
        each.fit(log, train)
        each.observe(np.arange(len(train), len(log)))
    scores, popular = scorer.score(questions), popularity.score(questions)
    span = (max(log.time[train]) - min(log.time[train])) if log.timed and len(train) else 0
    for at in range(len(questions)):
        total, history = sum(popular[at].tolist()) or 1.0, questions.history(at).tolist()
        for item in range(ITEMS):
            want = 100 * popular[at, item] / total
            for place, event in enumerate(history):
                if log.item[event] == item:
                    want += 0.5 ** ((log.time[history[-1]] - log.time[event]) / (span / 6)) if span else 1.0
                    last = (place + 1) / (len(history) + 1)
            want += 1e-4 * last if item in log.item[history] else 0.0
            assert scores[at, item] == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_of_items_had_as_often_the_newer_comes_first_where_there_is_no_time() -> None:
    log = log_of([(0, 0, item, float(at)) for at, item in enumerate([2, 0, 1, 0, 2, 1])])
    scorer = PersonalFrequency(crowd=0.0)
    scorer.fit(log, np.arange(6))
    assert rank(scorer.score(of_histories([range(6)])), of_histories([range(6)]), log, 3).tolist() == [[1, 2, 0]]


def test_an_unknown_asker_gets_what_is_popular() -> None:
    log = log_of([(0, 0, 1, 0.0), (0, 0, 2, 0.0), (0, 0, 2, 0.0)])
    scorer = PersonalFrequency()
    scorer.fit(log, np.arange(3))
    questions = of_histories([[]])
    assert rank(scorer.score(questions), questions, log, 3).tolist() == [[2, 1, 0]]


def test_reads_nothing_but_what_it_was_given() -> None:
    check_reads_nothing_else(PersonalFrequency(), PersonalFrequency())
