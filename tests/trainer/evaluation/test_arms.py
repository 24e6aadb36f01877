"""The model on a log of baskets: what the ranker learns, and what the arms see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainer.evaluation.logs import Row, log_of
from trainer.config import TrainerConfig
from trainer.data.log import Events, Split
from trainer.evaluation.arms import FrozenOusel, LiveOusel
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.run import judge
from trainer.evaluation.splits import prequential, sessions

USERS, ITEMS, DAYS = 12, 40, 60


def small(**changes: object) -> TrainerConfig:
    trainer = {
        "dim": 16, "heads": 2, "blocks": 1, "window": 8, "batch": 16, "epochs": 2, "learning_rate": 1e-2,
        "ranker_epochs": 4, "ranker_share": 0.4, "full_softmax": 5, "negatives": 8, "graph_share": 0.0, "min_count": 1,
        "refit": True,
    }  # fmt: skip
    return TrainerConfig.model_validate({"trainer": trainer | changes, "state": {"content_dim": 16}})


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
    scorer = OuselScorer(small(), by_session=False)
    scorer.fit(events, split.train)
    return events, split, scorer


def test_habits_are_learned_by_the_ranker(fitted: tuple[Events, Split, OuselScorer]) -> None:
    events, split, scorer = fitted
    assert judge(scorer, events, split, [2]).figures()["recall@2"] > 0.6  # two of three items are habits


def test_after_training_the_state_holds_all_training_events_and_no_other(
    fitted: tuple[Events, Split, OuselScorer],
) -> None:
    events, split, scorer = fitted
    train = split.train[events.item[split.train] != 5]  # an item held out
    again = OuselScorer(small(), by_session=False, weights=scorer.weights)
    again.fit(events, train)
    assert again._live is not None
    degree = again._live.graph.item_users.degree.data[:ITEMS]
    assert degree.tolist() == np.bincount(events.item[train], minlength=ITEMS).tolist()


def test_arms_that_share_a_scorer_begin_with_the_state_after_training(
    fitted: tuple[Events, Split, OuselScorer],
) -> None:
    events, split, scorer = fitted
    questions = split.questions.select(slice(0, 5))
    scorer.fit(events, split.train)
    want = scorer.lists(questions, 10, filter_seen=False)
    scorer.observe(np.arange(split.train[-1] + 1, len(events)))
    assert not np.array_equal(scorer.lists(questions, 10, filter_seen=False), want)
    scorer.fit(events, split.train)
    np.testing.assert_array_equal(scorer.lists(questions, 10, filter_seen=False), want)


def test_the_frozen_arm_knows_nothing_behind_training(fitted: tuple[Events, Split, OuselScorer]) -> None:
    events, split, scorer = fitted
    questions = split.questions.select(slice(len(split.questions) - USERS, None))
    frozen = FrozenOusel(scorer)
    frozen.fit(events, split.train)
    frozen.observe(np.arange(split.train[-1] + 1, len(events)))
    want = frozen.lists(questions, 10, filter_seen=False)
    late = np.arange(len(events)) > split.train[-1]
    others = replace(events, item=np.where(late, (events.item + 7) % ITEMS, events.item))
    twin = FrozenOusel(OuselScorer(small(), by_session=False, weights=scorer.weights))
    twin.fit(others, split.train)
    np.testing.assert_array_equal(twin.lists(questions, 10, filter_seen=False), want)
    assert not np.array_equal(scorer.lists(questions, 10, filter_seen=False), want)


def test_the_live_arm_sees_other_sessions_until_just_before_its_questions() -> None:
    events = habits()
    test = np.arange(len(events)) >= len(events) * 3 // 4
    events = replace(events, test=test)
    split = sessions(events)
    scorer = OuselScorer(small(epochs=1, refit=False), by_session=True)
    seen: list[int] = []

    class Watched(LiveOusel):
        def observe(self, positions: np.ndarray) -> None:
            seen.extend(positions.tolist())
            super().observe(positions)

        def lists(self, questions, k, **more):  # type: ignore[no-untyped-def]
            assert max(seen, default=-1) < questions.order[questions.cut].min()
            return super().lists(questions, k, **more)

    judge(Watched(scorer), events, split, [2])
    assert seen == sorted(set(seen)) and set(seen) <= set(np.flatnonzero(test)) and len(seen) > 300


def test_the_state_of_a_scorer_is_the_rings_of_the_log(fitted: tuple[Events, Split, OuselScorer]) -> None:
    events = log_of([(0, 0, 1, 1e9), (1, 1, 2, 1e9 + 1), (0, 0, 3, 1e9 + 2), (0, 2, 4, 1e9 + 3), (1, 1, 5, 1e9 + 4)])
    config = small().model_copy(update={"state": small().state.model_copy(update={"history": 4, "neighbors": 2})})
    scorer = OuselScorer(config, by_session=False, weights=fitted[2].weights)
    scorer.fit(events, np.arange(4))
    assert scorer._columns is not None and scorer._live is not None
    assert scorer._live.clock_ms == 1_000_000_003_000
    scorer.observe(np.arange(4, 5))
    assert scorer._live.clock_ms == 1_000_000_004_000
    assert scorer._columns.previous.tolist() == [-1, -1, 1, -1, 2]
    assert scorer._columns.session.tolist() == [1, 1, 1, 2, 1]
    graph = scorer._live.graph
    assert graph.user_items.latest(torch.tensor([0])).row.tolist() == [[-1, 1, 3, 4]]
    assert graph.item_next.latest(torch.tensor([1, 2])).row.tolist() == [[-1, 3], [-1, 5]]
    assert scorer._live.popularity.share().nonzero()[0].tolist() == [1, 2, 3, 4, 5]
