"""The second stage on a log of baskets: what is asked, what is learned, and what the arms see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from engine.model.ranker import Ranker
from tests.trainer.evaluation.logs import Row, log_of, rows
from trainer.data.log import Events, Split
from trainer.evaluation.arms import FrozenOusel, RetrainedOusel
from trainer.evaluation.live import LiveState
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.run import judge
from trainer.evaluation.settings import OuselSettings
from trainer.evaluation.splits import newest_questions, prequential

SMALL = OuselSettings(
    by_session=False, dim=16, heads=2, blocks=1, window=8, batch=16, epochs=2, learning_rate=1e-2, ranker=True,
    ranker_epochs=4, ranker_share=0.4, full_softmax=5, negatives=8,
)  # fmt: skip
USERS, ITEMS, DAYS = 12, 40, 60


def habits() -> Events:
    """Each day everybody buys the two items that are theirs, and one at random."""
    draw = np.random.default_rng(0)
    log: list[Row] = []
    for day in range(DAYS):
        for user in range(USERS):
            time = 1.7e9 + 86_400 * day + user
            for item in (user, user + USERS, int(draw.integers(0, ITEMS))):
                log.append((user, day * USERS + user, item, time))
    return log_of(log, items=ITEMS)


@pytest.fixture(scope="module")
def fitted() -> tuple[Events, Split, OuselScorer]:
    events = habits()
    split = prequential(events)
    scorer = OuselScorer(SMALL)
    scorer.fit(events, split.train)
    return events, split, scorer


def test_habits_are_learned_by_the_ranker(fitted: tuple[Events, Split, OuselScorer]) -> None:
    events, split, scorer = fitted
    judged = judge(scorer, events, split, [2])
    assert judged.figures()["recall@2"] > 0.6  # two of three items are habits
    plain = OuselScorer(replace(SMALL, ranker=False, epochs=1))
    assert judge(plain, events, split, [2]).figures()["recall@2"] < 0.5


def test_after_training_the_state_holds_all_training_events_and_no_other() -> None:
    events = habits()
    train = prequential(events).train
    train = train[events.item[train] != 5]  # an item held out
    scorer = OuselScorer(replace(SMALL, epochs=1, ranker_epochs=1))
    scorer.fit(events, train)
    assert scorer._live is not None
    degree = scorer._live.graph.item_users.degree.data[:ITEMS]
    assert degree.tolist() == np.bincount(events.item[train], minlength=ITEMS).tolist()


def test_arms_that_share_a_scorer_begin_with_the_state_after_training(
    fitted: tuple[Events, Split, OuselScorer],
) -> None:
    events, split, scorer = fitted
    questions = split.questions.select(slice(0, 5))
    scorer.fit(events, split.train)
    want = scorer.score(questions)
    scorer.observe(np.arange(split.train[-1] + 1, len(events)))
    scorer.fit(events, split.train)
    np.testing.assert_array_equal(scorer.score(questions), want)


def test_the_frozen_arm_knows_nothing_behind_training(fitted: tuple[Events, Split, OuselScorer]) -> None:
    events, split, scorer = fitted
    questions = split.questions.select(slice(len(split.questions) - USERS, None))
    frozen = FrozenOusel(scorer)
    frozen.fit(events, split.train)
    frozen.observe(np.arange(split.train[-1] + 1, len(events)))
    want = frozen.score(questions)
    late = np.arange(len(events)) > split.train[-1]
    others = replace(events, item=np.where(late, (events.item + 7) % ITEMS, events.item))
    again = OuselScorer(SMALL)
    again.fit(others, split.train)
    twin = FrozenOusel(again)
    twin.fit(others, split.train)
    np.testing.assert_allclose(twin.score(questions), want, atol=1e-4)
    assert not np.allclose(scorer.score(questions), want, atol=1e-4)


def test_the_retrained_arm_learns_only_from_targets_that_were_observed(
    fitted: tuple[Events, Split, OuselScorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    events, split, scorer = fitted
    monkeypatch.setattr("trainer.evaluation.arms._RETRAIN_QUESTIONS", 5)
    learned: list[int] = []
    monkeypatch.setattr(
        "trainer.evaluation.arms.fit_ranker",
        lambda ranker, examples, *_: learned.append(sum(len(example.wanted) for example in examples)),
    )
    arm = RetrainedOusel(scorer)
    arm.fit(events, split.train)
    questions = split.questions.select(slice(0, 6))
    arm.score(questions)
    arm.observe(np.arange(split.train[-1] + 1, int(questions.order[questions.cut[3]])))
    assert learned == [3 + sum(len(example.wanted) for example in scorer.examples)]


@pytest.mark.parametrize(("change", "kept"), [(-50.0, False), (0.0, True)])
def test_a_training_that_serves_newer_lists_worse_is_taken_back(
    fitted: tuple[Events, Split, OuselScorer], monkeypatch: pytest.MonkeyPatch, change: float, kept: bool
) -> None:
    events, split, scorer = fitted
    monkeypatch.setattr("trainer.evaluation.arms._RETRAIN_QUESTIONS", 8)

    def train(ranker: Ranker, *_: object) -> None:
        with torch.no_grad():
            ranker.session += change  # far below zero it turns the order around
            ranker.score.bias += 1.0  # moves all scores alike

    monkeypatch.setattr("trainer.evaluation.arms.fit_ranker", train)
    arm = RetrainedOusel(scorer)
    arm.fit(events, split.train)
    before = scorer.ranker.score.bias.item()
    for first in range(0, 8, 2):
        arm.score(split.questions.select(slice(first, first + 2)))
    arm.observe(np.arange(split.train[-1] + 1, len(events)))
    assert scorer.ranker.score.bias.item() == pytest.approx(before + kept)


@given(log=rows())
@settings(max_examples=60, deadline=None)
def test_the_newest_questions_are_all_of_the_rest_and_nothing_of_it_is_learned_from(log: list[Row]) -> None:
    events = log_of(log)
    train = np.arange(max(1, len(log) - 3))
    for by_session in (False, True):
        early, questions = newest_questions(events, train, 0.4, by_session=by_session)
        assert set(early) < set(train) or not len(questions)
        who = events.session if by_session else events.user
        late = set(train) - set(early)
        asked: list[int] = []
        for at in range(len(questions)):
            history, targets = questions.history(at), questions.targets(at)
            asked += targets.tolist()
            assert set(targets) <= late
            assert len({*who[history], *who[targets]}) == 1
            assert list(history) == [e for e in train if who[e] == who[targets[0]] and e < targets[0]]
        assert len(asked) == len(set(asked))
        first = {who[e]: e for e in reversed(train.tolist())}
        unasked = late - set(asked)
        assert all(events.time[e] == events.time[first[who[e]]] or by_session for e in unasked)


def test_the_live_state_is_the_rings_of_the_log() -> None:
    events = log_of([(0, 0, 1, 1e9), (1, 1, 2, 1e9 + 1), (0, 0, 3, 1e9 + 2), (0, 2, 4, 1e9 + 3), (1, 1, 5, 1e9 + 4)])
    live = LiveState(events, by_session=False, history=4, neighbors=2, group=np.full(6, -1))
    live.fold(np.arange(5))
    assert live.columns.previous.tolist() == [-1, -1, 1, -1, 2]
    assert live.columns.session.tolist() == [1, 1, 1, 2, 1]
    graph = live.graph
    assert graph.user_items.latest(torch.tensor([0])).row.tolist() == [[-1, 1, 3, 4]]
    assert graph.item_next.latest(torch.tensor([1, 2])).row.tolist() == [[-1, 3], [-1, 5]]
    assert live.moment.popularity.share().nonzero()[0].tolist() == [1, 2, 3, 4, 5]


def test_the_clock_is_the_newest_event_that_was_folded() -> None:
    events = log_of([(0, 0, 1, 1e9), (1, 1, 2, 1e9 + 1), (2, 2, 3, 1e9 + 5), (0, 3, 4, 1e9 + 9), (0, 4, 5, 1e9 + 12)])
    live = LiveState(events, by_session=False, history=4, neighbors=2, group=np.full(6, -1))
    live.fold(np.arange(2))
    assert live.moment.clock_ms - 10**12 == 1000
    live.fold(np.arange(2, 3))
    assert live.moment.clock_ms - 10**12 == 5000
