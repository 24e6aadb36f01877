"""The index of sessions against dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.evaluation.logs import log_of
from tests.trainer.evaluation.peers.cases import after_every_event, logs, sessions_of
from trainer.data.log import Events, Ints
from trainer.evaluation.peers.session_index import SessionIndex, nearest, spans


@given(case=logs(), window=st.integers(1, 8), most=st.integers(1, 5), parts=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_finds_the_most_recent_sessions_that_share_an_item(
    case: tuple[Events, Ints], window: int, most: int, parts: int
) -> None:
    log, train = case
    index = SessionIndex(log, window)
    index.add(train)
    index.refresh()
    for later in np.array_split(np.arange(len(train), len(log)), parts):
        index.add(later)
    index.refresh()
    rows = list(sessions_of(log, np.arange(len(log)), window).items())
    assert len(index) == len(rows)
    questions = after_every_event(log)
    for at in range(len(questions)):
        history = questions.history(at)[-window:]
        query = index.query(questions.history(at))
        age = {int(log.item[position]): age for age, position in reversed(list(enumerate(history[::-1])))}
        assert dict(zip(query.item.tolist(), query.age.tolist(), strict=True)) == age
        want = []
        for row, (session, positions) in enumerate(rows):
            shared = set(log.item[positions].tolist()) & age.keys()
            if shared and session != log.session[history[-1]]:
                newest = min(shared, key=lambda item: age[item])
                want.append((row, sum(2.0 ** -age[item] for item in shared), age[newest], newest))
        found = index.candidates(query, 0.5 ** query.age.astype(np.float64), most)
        columns = (found.row, found.overlap, found.age, found.item)
        assert list(zip(*(each.tolist() for each in columns), strict=True)) == want[-most:]
        place, of = index.events_of(found.row)
        assert index.item[place].tolist() == [log.item[p] for row, *_ in want[-most:] for p in rows[row][1]]
        assert of.tolist() == [number for number, (row, *_) in enumerate(want[-most:]) for _ in rows[row][1]]


def test_a_session_is_no_neighbor_of_itself_even_where_it_is_the_most_recent() -> None:
    log = log_of([(0, 0, 1, 0.0), (1, 1, 1, 1.0), (2, 2, 1, 2.0)])
    index = SessionIndex(log, 9)
    index.add(np.arange(3))
    index.refresh()
    found = index.candidates(index.query(np.array([2])), np.ones(1), 1)
    assert found.row.tolist() == [1]


@given(
    similarity=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), max_size=12).map(
        lambda each: np.array(each, np.float64)
    ),
    k=st.integers(1, 14),
)
def test_of_equally_similar_sessions_the_recent_ones_are_nearer(similarity: np.ndarray, k: int) -> None:
    want = sorted(range(len(similarity)), key=lambda at: (-similarity[at], -at))[:k]
    assert nearest(similarity, k).tolist() == sorted(want)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=8))
def test_spans_are_ranges_one_after_the_other(ranges: list[tuple[int, int]]) -> None:
    begin, length = np.array(ranges, np.int64).reshape(-1, 2).T
    assert spans(begin, begin + length).tolist() == [at for b, n in ranges for at in range(b, b + n)]


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="window must be >= 1, got 0"):
        SessionIndex(log_of([(0, 0, 1, 0.0)]), 0)
