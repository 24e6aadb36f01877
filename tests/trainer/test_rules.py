from __future__ import annotations

import logging

import pytest
import torch

from engine.model.recommender import ModelShape
from trainer.config import TrainSection
from trainer.replay import EventLog
from trainer.rules import Facts, settled


def log_of(users: int, events: int, items: int) -> EventLog:
    """As many events for each user, over as many items in turn."""
    user = torch.arange(users).repeat_interleave(events)
    at = torch.arange(len(user))
    zero = torch.zeros_like(at)
    return EventLog(user, at % items, at, zero, torch.ones(len(at)), zero, zero - 1)


def test_a_log_is_told_by_its_events_users_and_items() -> None:
    facts = Facts.of(log_of(100, 7, 50))
    assert (facts.events, facts.users, facts.items, facts.median, facts.length) == (700, 100, 50, 7.0, 7.0)
    assert Facts.of(log_of(0, 0, 1)).events == 0


@pytest.mark.parametrize(
    ("items", "width"), [(12_000, 256), (131_072, 256), (131_073, 128), (300_000, 64), (1_000_000, 64)]
)
def test_a_sparse_log_gets_the_width_that_its_catalog_has_room_for(items: int, width: int) -> None:
    assert Facts(3 * items, items // 3, items, 9.0, 15.0).width == width
    assert Facts(30 * items, items, items, 30.0, 60.0).width == 64


@pytest.mark.parametrize(
    ("users", "events", "items", "full_softmax", "want"),
    [
        # Few events of each user and of each item: what is learned by heart is most of what is learned.
        (400, 5, 500, 5000, {"dim": 256, "blocks": 1, "dropout": 0.6, "learning_rate": 1e-3, "min_count": 2}),
        (400, 5, 500, 100, {"dim": 256, "min_count": 2, "window": 16}),
        # Short sessions over a small catalog: many events of each item.
        (400, 5, 50, 5000, {"dim": 64, "blocks": 2, "dropout": 0.2, "learning_rate": 2e-3, "min_count": 1}),
        # Long histories, over more items than can all be compared with.
        (20, 100, 90, 50, {"dim": 64, "blocks": 2, "min_count": 5, "window": 128, "batch": 32}),
        (20, 100, 1000, 50, {"blocks": 1, "min_count": 5, "dropout": 0.2}),
    ],
)
def test_what_nobody_sets_follows_from_the_log(
    users: int, events: int, items: int, full_softmax: int, want: dict[str, float]
) -> None:
    recipe = settled(TrainSection(full_softmax=full_softmax), log_of(users, events, items), history=512)
    assert recipe.model_dump(include=set(want)) == want


def test_what_is_set_stays_and_what_is_chosen_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    recipe = settled(TrainSection(dim=32, min_count=3), log_of(400, 5, 500), history=512)
    assert (recipe.dim, recipe.min_count) == (32, 3)
    assert "a sparse log" in caplog.text and "dropout 0.6" in caplog.text
    assert "dim" not in caplog.text and "min_count" not in caplog.text


def test_a_window_is_never_longer_than_the_history_that_is_kept() -> None:
    assert settled(TrainSection(), log_of(20, 100, 90), history=40).window == 40


def test_a_model_to_start_from_keeps_its_shape() -> None:
    before = ModelShape(vocabulary=9, content_dim=8, kinds=2, dim=96, heads=2, blocks=3, window=24)
    recipe = settled(TrainSection(), log_of(400, 5, 500), history=512, previous=before)
    assert (recipe.dim, recipe.blocks, recipe.window) == (96, 3, 24)
