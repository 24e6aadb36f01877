"""Personal frequency against sorting tuples."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from tests.trainer.evaluation.logs import log_of
from tests.trainer.evaluation.peers.cases import ITEMS, after_every_event, check_reads_nothing_else, logs, of_histories
from trainer.evaluation.log import Events, Ints
from trainer.evaluation.peers import DecayedPopularity, PersonalFrequency
from trainer.evaluation.ranked import rank


@given(case=logs())
@settings(max_examples=50, deadline=None)
def test_ranks_by_times_then_recency_then_popularity(case: tuple[Events, Ints]) -> None:
    log, train = case
    scorer, popularity = PersonalFrequency(), DecayedPopularity()
    questions = after_every_event(log)
    for each in (scorer, popularity):
        each.fit(log, train)
        each.observe(np.arange(len(train), len(log)))
    lists = rank(scorer.score(questions), questions, log, ITEMS)
    popular = popularity.score(questions)
    for at in range(len(questions)):
        history = log.item[questions.history(at)].tolist()
        last = {item: place for place, item in enumerate(history)}
        key = {item: (-history.count(item), -last.get(item, -1), -popular[at, item], item) for item in range(ITEMS)}
        assert lists[at].tolist() == sorted(range(ITEMS), key=key.__getitem__)


def test_a_long_history_of_a_large_catalog_keeps_its_order() -> None:
    count = 60_000
    log = log_of([(0, 0, item, float(item)) for item in range(count)], items=92_000)
    scorer = PersonalFrequency()
    scorer.fit(log, np.arange(count))
    scores = scorer.score(of_histories([range(count)]))[0]
    assert (np.diff(scores[:count]) > 0).all()
    assert scores[count:].max() < scores[:count].min()


def test_an_unknown_asker_gets_what_is_popular() -> None:
    log = log_of([(0, 0, 1, 0.0), (0, 0, 2, 0.0), (0, 0, 2, 0.0)])
    scorer = PersonalFrequency()
    scorer.fit(log, np.arange(3))
    questions = of_histories([[]])
    assert rank(scorer.score(questions), questions, log, 3).tolist() == [[2, 1, 0]]


def test_reads_nothing_but_what_it_was_given() -> None:
    check_reads_nothing_else(PersonalFrequency(), PersonalFrequency())
