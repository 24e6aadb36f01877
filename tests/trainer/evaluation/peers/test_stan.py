"""STAN against loops over dictionaries, written from the paper."""

from __future__ import annotations

from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.evaluation.logs import log_of
from tests.trainer.evaluation.peers.cases import (
    after_every_event,
    check_reads_nothing_else,
    logs,
    of_histories,
    sessions_of,
    with_rest,
)
from trainer.data.log import Events, Ints
from trainer.evaluation.peers import STAN


@given(
    case=logs(sessions=10),
    k=st.integers(1, 4),
    more=st.integers(0, 4),
    spw=st.sampled_from([0.5, 2.0]),
    snh=st.sampled_from([3.0, 50.0]),
    inh=st.sampled_from([0.5, 2.0]),
    repeats=st.booleans(),
    window=st.sampled_from([3, 50]),
)
@settings(max_examples=60, deadline=None)
def test_neighbors_vote_as_in_the_paper(
    case: tuple[Events, Ints], k: int, more: int, spw: float, snh: float, inh: float, repeats: bool, window: int
) -> None:
    log, train = case
    scorer = STAN(k, k + more, spw, snh, inh, repeats, window)
    scorer.fit(log, train)
    middle = (len(train) + len(log)) // 2
    scorer.observe(np.arange(len(train), middle))
    known = np.arange(middle)
    sessions = sessions_of(log, known, window)
    items = {s: log.item[positions].tolist() for s, positions in sessions.items()}
    questions = after_every_event(log)
    scores = scorer.score(questions)
    for at in range(len(questions)):
        history = questions.history(at)
        running = log.item[history[-window:]].tolist()
        n = len(running)
        position = {item: place for place, item in enumerate(running, start=1)}
        # Equal sums are equal to the bit only if they add the same numbers in the same order, oldest first.
        oldest_first = sorted(position, key=lambda item: position[item])
        weight = {item: float(np.exp((position[item] - n) / spw)) for item in position}
        compared = [s for s in items if s != log.session[history[-1]] and position.keys() & set(items[s])]
        similarity = {
            s: sum(weight[item] for item in oldest_first if item in items[s]) / sqrt(n * len(items[s]))
            for s in reversed(compared[-k - more :])
        }
        ranked = sorted(similarity, key=lambda s: -similarity[s])[:k]
        total: dict[int, float] = {}
        for s in ranked:
            gap = max(0.0, log.time[history[-1]] - log.time[sessions[s][-1]])
            vote = similarity[s] * (exp(-gap / snh) if log.timed else 1)
            last = {item: place for place, item in enumerate(items[s])}
            matched = last[max((item for item in last if item in position), key=lambda item: position[item])]
            for item, place in enumerate_items(items[s], repeats):
                total[item] = total.get(item, 0) + vote * exp(-abs(place - matched) / inh)
        highest = max(total.values(), default=1)
        want = {item: score / highest for item, score in total.items()}
        assert scores[at].tolist() == pytest.approx(with_rest(want, log, known), rel=1e-5)


def enumerate_items(items: list[int], repeats: bool) -> list[tuple[int, int]]:
    each = [(item, place) for place, item in enumerate(items)]
    return each if repeats else list(dict(each).items())


def test_two_neighbors_by_hand() -> None:
    rows = [
        (0, 0, 1, 0.0),
        (0, 0, 3, 1.0),
        (1, 1, 4, 2.0),
        (1, 1, 0, 3.0),
        (1, 1, 2, 4.0),
        (2, 2, 1, 5.0),
        (2, 2, 2, 6.0),
    ]
    scorer = STAN(k=2, sample=2, lambda_spw=1.0, lambda_snh=10.0, lambda_inh=2.0)
    log = log_of(rows)
    scorer.fit(log, np.arange(5))
    # The running session is 1, 2: the session 1, 3 shares the item before, 4, 0, 2 the newest.
    old, new = exp(-1) / sqrt(4) * exp(-5 / 10), 1 / sqrt(6) * exp(-2 / 10)
    want = [new * exp(-1 / 2), old, new, old * exp(-1 / 2), new * exp(-2 / 2), 0]
    scores = scorer.score(of_histories([[5, 6]]))[0]
    assert scores[:5].tolist() == pytest.approx([each / new for each in want[:5]])
    assert scores[5] == -1


def test_neighbors_of_long_ago_still_rank_their_items() -> None:
    log = log_of([(0, 0, 1, 0.0), (0, 0, 3, 1.0), (1, 1, 1, 1e9)])
    scorer = STAN(lambda_snh=1e9 / 300)  # e to the -300 is a double and no single
    scorer.fit(log, np.arange(2))
    assert scorer.score(of_histories([[2]]))[0].argsort()[::-1][:2].tolist() == [1, 3]
    assert (scorer.score(of_histories([[2]]))[0, [1, 3]] > 0).all()


def test_reads_nothing_but_what_it_was_given() -> None:
    check_reads_nothing_else(STAN(), STAN())


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"sample": 1}, {"lambda_spw": 0.0}, {"lambda_snh": -1.0}, {"lambda_inh": 0.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        STAN(**wrong)  # type: ignore[arg-type]
