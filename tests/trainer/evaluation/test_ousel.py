"""The encoders as a scorer: what they learn from a planted log, and what they must not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.log import Events, Questions
from trainer.evaluation.live import ordinals
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.settings import OuselSettings

ITEMS, SESSIONS, LENGTH = 12, 80, 6
SMALL = OuselSettings(by_session=True, dim=16, heads=2, blocks=1, window=8, batch=16, epochs=25, learning_rate=1e-2)


def planted() -> Events:
    """Sessions that step on through the items; the last one of the catalog comes up nowhere."""
    start = np.arange(SESSIONS) * 5
    item = (start[:, None] + np.arange(LENGTH)).ravel() % (ITEMS - 1)
    session = np.repeat(np.arange(SESSIONS), LENGTH)
    return Events(
        user=session,
        session=session,
        item=item,
        time=np.arange(len(item), dtype=np.float64),
        kind=np.zeros(len(item), np.int64),
        value=np.ones(len(item), np.float32),
        test=None,
        items=[f"i{at}" for at in range(ITEMS)],
        users=[str(at) for at in range(SESSIONS)],
        sessions=[str(at) for at in range(SESSIONS)],
        kinds=["view"],
        timed=False,
    )


def next_of_last_sessions(events: Events, count: int) -> tuple[np.ndarray, Questions]:
    """Training positions, and for each of the last sessions what comes after its first three."""
    begin = (SESSIONS - count) * LENGTH
    first = np.arange(begin, len(events), LENGTH)
    return np.arange(begin), Questions(np.arange(len(events)), first, first + 3, first + 4)


def test_a_planted_sequence_is_learned_and_unknown_items_come_last() -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    scorer = OuselScorer(SMALL)
    scorer.fit(events, train)
    scores = scorer.score(questions)
    assert scores.shape == (10, ITEMS) and scores.dtype == np.float32
    assert scores.argmax(1).tolist() == events.item[questions.order[questions.cut]].tolist()
    assert scores.argmin(1).tolist() == [ITEMS - 1] * 10
    query, table, known = scorer.vectors(questions)
    assert known.tolist() == [True] * (ITEMS - 1) + [False]
    np.testing.assert_allclose(table.norm(dim=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(scores[:, :-1], (query @ table.T).numpy()[:, :-1])


def test_an_item_that_training_has_not_seen_is_found_by_its_content() -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    like = 4
    content = torch.eye(ITEMS)
    content[ITEMS - 1] = content[like]
    scorer = OuselScorer(replace(SMALL, id_dropout=0.3), content=content)
    scorer.fit(events, train)
    scores = scorer.score(questions)
    assert scorer.vectors(questions)[2].all()
    asked = events.item[questions.order[questions.cut]] == like
    assert 0 < asked.sum() < len(asked)
    first_two = np.sort(scores[asked].argsort(1)[:, -2:], axis=1)
    assert (first_two == [like, ITEMS - 1]).all()
    assert (scores[~asked].argmax(1) != ITEMS - 1).all()


def test_nothing_but_training_events_and_histories_counts_and_a_seed_repeats() -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    settings = replace(SMALL, epochs=1)
    later = events.item.copy()
    known = np.concatenate([questions.history(at) for at in range(len(questions))])
    hidden = np.setdiff1d(np.arange(len(events)), np.concatenate([train, known]))
    later[hidden] = 0
    scores = []
    for one in (events, replace(events, item=later)):
        scorer = OuselScorer(settings)
        scorer.fit(one, train)
        scores.append(scorer.score(questions))
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("name", ["augment_crop", "augment_mask", "augment_reorder"])
def test_a_planted_sequence_is_learned_from_augmented_windows_too(name: str) -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    scorer = OuselScorer(replace(SMALL, **{name: 0.2}, dropout=0.0, epochs=8))
    scorer.fit(events, train)
    assert scorer.score(questions).argmax(1).tolist() == events.item[questions.order[questions.cut]].tolist()
    plain = OuselScorer(replace(SMALL, dropout=0.0, epochs=8))
    plain.fit(events, train)
    assert scorer.course.curve[0]["loss"] != plain.course.curve[0]["loss"]


def test_goals_part_what_one_kind_names_from_what_another_does() -> None:
    # Sessions step on through five places, each an item that is viewed and one that is clicked; a coin decides which.
    coin = np.random.default_rng(0).integers(0, 2, SESSIONS * LENGTH)
    place = (np.arange(SESSIONS)[:, None] * 3 + np.arange(LENGTH)).ravel() % 5
    events = replace(planted(), item=place + 5 * coin, kind=coin, kinds=["view", "click"])
    train, questions = next_of_last_sessions(events, 10)
    scorer = OuselScorer(replace(SMALL, by_kind=True, dropout=0.0))
    scorer.fit(events, train)
    assert scorer._forward is not None and scorer._live is not None
    history = scorer._live.history(questions, 3)
    expected = (history.row[:, -1] + 1) % 5
    with torch.no_grad():
        for goal in (0, 1):
            best = (scorer._forward.model.sequence(scorer._table, history, goal)[:, -1] @ scorer._table.T).argmax(1)
            assert best.tolist() == (expected + 5 * goal).tolist()
    both = np.sort(scorer.score(questions).argsort(1)[:, -2:])  # without a goal, either
    assert both.tolist() == np.stack([expected, expected + 5], 1).tolist()


@given(visits=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12))
def test_sessions_are_counted_from_one_for_each_owner(visits: list[tuple[int, int]]) -> None:
    want, last, count = [], {}, {}
    for who, session in visits:
        if last.get(who) != session:
            count[who] = count.get(who, 0) + 1
            last[who] = session
        want.append(count[who])
    who, session = (np.array(column, np.int64) for column in (zip(*visits, strict=True) if visits else ((), ())))
    assert ordinals(who, session).tolist() == want
