"""Peers are compared at settings that were chosen on the same file, and never on what is asked in the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.evaluation.logs import Row, log_of
from tests.trainer.evaluation.peers.cases import of_histories
from trainer.data.log import Events
from trainer.evaluation.peers import ItemKNN, tuning
from trainer.evaluation.peers.tuning import CHOICES, Unrepeated, as_chosen, tuned
from trainer.evaluation.splits import prequential, successive


def shop(seed: int = 0) -> Events:
    """Everybody goes through the items in steps of one, and never has one again."""
    draw = np.random.default_rng(seed)
    log: list[Row] = []
    for user, start in enumerate(draw.integers(0, 20, 40).tolist()):
        log += [(user, user, start + step, 1.7e9 + 600 * step + user) for step in range(8)]
    return log_of(sorted(log, key=lambda row: row[3]), items=28)


def test_all_peers_are_chosen_on_validation_and_say_by_what() -> None:
    events = shop()
    peers, settings = tuned(events, successive(events, validation=True), 5)
    names = ["popularity", "frequency", "item_knn", "stan", "session_knn"]
    assert [peer.name for peer in peers] == names == [*settings]
    for peer, kind in zip(peers, CHOICES, strict=True):
        chosen = settings[peer.name]
        assert set(chosen) <= {*CHOICES[kind], "repeats_listed", "validation_ndcg@5"}
        assert 0 <= chosen["validation_ndcg@5"] <= 1
    # What nobody ever does again takes places in a list.
    assert settings["frequency"]["repeats_listed"] is False


def test_peers_are_made_again_from_what_was_chosen() -> None:
    events = shop()
    peers, found = tuned(events, successive(events, validation=True), 5)
    chosen = {
        name: {key: value for key, value in one.items() if not key.startswith("validation")}
        for name, one in found.items()
    }
    again = as_chosen(events, chosen)
    questions = of_histories([[0, 1, 2]])
    for peer, other in zip(peers, again, strict=True):
        scores = []
        for one in (peer, other):
            one.fit(events, np.arange(len(events) // 2))
            one.observe(np.zeros(0, np.int64))
            scores.append(one.score(questions))
        assert peer.name == other.name
        np.testing.assert_array_equal(*scores)


def test_what_is_asked_in_the_end_has_no_say() -> None:
    events = shop()
    late = np.arange(len(events)) >= prequential(events).train[-1] + 1
    other = replace(events, item=np.where(late, (events.item + 9) % 28, events.item))
    found = [tuned(one, prequential(one, validation=True), 5)[1] for one in (events, other)]
    assert found[0] == found[1]


def test_a_setting_is_kept_where_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(kind: object, settings: dict[str, float], *_: object) -> float:
        return settings.get("a", 0) + settings.get("b", 1) * 10

    monkeypatch.setattr(tuning, "_score", score)
    split = successive(shop(), validation=True)
    best, got = tuning._best_of(ItemKNN, {"a": (1, 3, 2), "b": (0, 1, 2)}, shop(), split, 5)
    assert (best, got) == ({"a": 3, "b": 2}, 23)


def test_items_of_the_history_come_behind_all_others_in_their_order() -> None:
    events = shop()
    peer, plain = Unrepeated(ItemKNN(), events), ItemKNN()
    train = np.arange(len(events) // 2)
    for one in (peer, plain):
        one.fit(events, train)
        one.observe(np.zeros(0, np.int64))
    questions = of_histories([[0, 1, 2]])
    seen = events.item[[0, 1, 2]]
    scores = peer.score(questions)[0]
    others = np.setdiff1d(np.arange(28), seen)
    assert scores[seen].max() < scores[others].min()
    np.testing.assert_array_equal(scores[others], plain.score(questions)[0][others])
