"""V-SKNN against loops over dictionaries, written from the paper."""

from __future__ import annotations

from math import log as ln
from math import log10
from typing import Any

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
from trainer.evaluation.peers import SessionKNN
from trainer.evaluation.peers.session_knn import Fading, fade

WEIGHT = {  # by the position from 1 in a session of n events
    "same": lambda position, n: 1.0,
    "linear": lambda position, n: max(0.0, 1 - 0.1 * (n - position)),
    "share": lambda position, n: position / n,
    "quadratic": lambda position, n: (position / n) ** 2,
    "log": lambda position, n: 1 / log10(n - position + 1.7),
    "div": lambda position, n: 1 / (n - position + 1),
    "div_square": lambda position, n: 1 / (n - position + 1) ** 2,
}


@given(
    case=logs(sessions=10),
    k=st.integers(1, 4),
    more=st.integers(0, 4),
    weighting=st.sampled_from(sorted(WEIGHT)),
    decay=st.sampled_from(sorted(WEIGHT)),
    idf=st.sampled_from([0.0, 1.5]),
    repeats=st.booleans(),
    window=st.sampled_from([3, 50]),
)
@settings(max_examples=60, deadline=None)
def test_neighbors_vote_as_in_the_paper(
    case: tuple[Events, Ints],
    k: int,
    more: int,
    weighting: Fading,
    decay: Fading,
    idf: float,
    repeats: bool,
    window: int,
) -> None:
    log, train = case
    scorer = SessionKNN(k, k + more, weighting, decay, idf, repeats, window)
    scorer.fit(log, train)
    middle = (len(train) + len(log)) // 2
    scorer.observe(np.arange(len(train), middle))
    known = np.arange(middle)
    sessions = {s: log.item[positions].tolist() for s, positions in sessions_of(log, known, window).items()}
    questions = after_every_event(log)
    scores = scorer.score(questions)
    for at in range(len(questions)):
        history = questions.history(at)
        running = log.item[history[-window:]].tolist()
        n = len(running)
        position = {item: place for place, item in enumerate(running, start=1)}
        # Equal sums are equal to the bit only if they add the same numbers in the same order, oldest first.
        oldest_first = sorted(position, key=lambda item: position[item])
        weight = {item: float(fade(weighting, np.array([n - position[item]]), n)[0]) for item in position}
        compared = [s for s in sessions if s != log.session[history[-1]] and position.keys() & set(sessions[s])]
        similarity = {
            s: sum(weight[item] for item in oldest_first if item in sessions[s])
            for s in reversed(compared[-k - more :])
        }
        ranked = sorted(similarity, key=lambda s: -similarity[s])[:k]
        total: dict[int, float] = {}
        for s in ranked:
            matched = max(position[item] for item in sessions[s] if item in position)
            for item in sessions[s] if repeats else set(sessions[s]):
                total[item] = total.get(item, 0) + similarity[s] * WEIGHT[decay](matched, n)
        for item in total:
            total[item] *= 1 + idf * ln(len(sessions) / sum(item in items for items in sessions.values()))
        assert scores[at].tolist() == pytest.approx(with_rest(total, log, known), rel=1e-5)


def test_two_neighbors_by_hand() -> None:
    log = log_of([(0, 0, 1, 0.0), (0, 0, 3, 1.0), (1, 1, 2, 2.0), (1, 1, 4, 3.0), (2, 2, 1, 4.0), (2, 2, 2, 5.0)])
    scorer = SessionKNN(k=2, sample=2, weighting="div", decay="div", idf=0.0)
    scorer.fit(log, np.arange(4))
    # The running session is 1, 2: the session 1, 3 shares the item before, 2, 4 the newest.
    scores = scorer.score(of_histories([[4, 5]]))[0]
    assert scores.tolist() == pytest.approx([-1, 0.25, 1, 0.25, 1, -1])


def test_what_no_neighbor_has_comes_after_all_else_by_popularity() -> None:
    log = log_of([(0, 0, 1, 0.0), (0, 0, 1, 1.0), (0, 0, 2, 2.0), (1, 1, 5, 3.0)])
    scorer = SessionKNN()
    scorer.fit(log, np.arange(3))
    assert scorer.score(of_histories([[3]]))[0].tolist() == pytest.approx([-1, 2 / 3 - 1, 1 / 3 - 1, -1, -1, -1])


@pytest.mark.parametrize("kind", sorted(WEIGHT))
def test_weights_fade_toward_the_past(kind: Fading) -> None:
    weight = fade(kind, np.arange(30), 30)
    assert weight.tolist() == pytest.approx([WEIGHT[kind](30 - age, 30) for age in range(30)])
    assert (np.diff(weight) <= 0).all()


def test_reads_nothing_but_what_it_was_given() -> None:
    check_reads_nothing_else(SessionKNN(), SessionKNN())


@pytest.mark.parametrize("wrong", [{"k": 0}, {"sample": 1}, {"weighting": "cubic"}, {"decay": ""}, {"idf": -1.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        SessionKNN(**wrong)
