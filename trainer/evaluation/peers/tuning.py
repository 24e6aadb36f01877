"""Chooses the settings of each peer on questions about a part of what may be trained on, never on those of the test.

Every peer is tried at its defaults and at a few settings around them: one after the other is changed, and what gains is
kept. Whether items of the running session may be listed is among them: where nobody repeats anything, they take places.

Shapes: N items.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions, Scorer, Split
from trainer.evaluation.peers.frequency import PersonalFrequency
from trainer.evaluation.peers.item_knn import ItemKNN
from trainer.evaluation.peers.popularity import DecayedPopularity
from trainer.evaluation.peers.session_knn import SessionKNN
from trainer.evaluation.peers.stan import STAN
from trainer.evaluation.run import judge

_log = logging.getLogger(__name__)

_QUESTIONS = 2000  # at most, evenly over the validation's
_DAY_S = 86_400.0

Settings = dict[str, Any]

# By peer, what is tried in place of each default; times are in seconds, or events where the log is not timed.
CHOICES: Mapping[Callable[..., Scorer], Mapping[str, Sequence[Any]]] = {
    DecayedPopularity: {"half_life": (_DAY_S / 4, 2 * _DAY_S, 14 * _DAY_S)},
    PersonalFrequency: {"half_life": (14 * _DAY_S, 60 * _DAY_S, 240 * _DAY_S), "crowd": (1.0, 10.0, 100.0)},
    ItemKNN: {"k": (50, 1000), "shrinkage": (0.0, 50.0), "decay": (0.1, 0.8)},
    STAN: {
        "k": (100, 1500),
        "lambda_spw": (0.2, 2.0, 8.0),
        "lambda_snh": (_DAY_S, 50 * _DAY_S),
        "lambda_inh": (1.0, 8.0),
    },
    SessionKNN: {"k": (100, 1500), "weighting": ("div", "quadratic"), "decay": ("linear", "log"), "idf": (0.0, 5.0)},
}


class Unrepeated:
    """A peer that never lists an item of the history of who asks."""

    def __init__(self, peer: Scorer, events: Events) -> None:
        self.name = peer.name
        self._peer = peer
        self._events = events

    def fit(self, events: Events, train: Ints) -> None:
        self._peer.fit(events, train)

    def observe(self, positions: Ints) -> None:
        self._peer.observe(positions)

    def score(self, questions: Questions) -> NDArray[np.float32]:
        scores = self._peer.score(questions)
        for at, row in enumerate(scores):
            seen = self._events.item[questions.history(at)]
            # Behind all others, in their own order: what is left out counts no less than what is unknown.
            row[seen] -= np.float32(row.max(initial=0.0) - row.min(initial=0.0) + 1.0)
        return scores


def tuned(events: Events, validation: Split, k: int) -> tuple[list[Scorer], dict[str, Settings]]:
    """Each peer at the settings that are best by NDCG@k on the validation, and these settings by its name."""
    count = len(validation.questions)
    some = validation.questions.select(np.unique(np.linspace(0, count - 1, min(count, _QUESTIONS)).astype(np.int64)))
    asked = Split(validation.protocol, validation.train, some, validation.filter_seen, validation.digest)
    chosen: list[Scorer] = []
    settings: dict[str, Settings] = {}
    for kind, choices in CHOICES.items():
        best, score = _best_of(kind, choices, events, asked, k)
        peer = _made(kind, best, events)
        chosen.append(peer)
        settings[peer.name] = best | {f"validation_ndcg@{k}": score}
        _log.info("%s is best with %s: NDCG@%d %.4f on validation", peer.name, best or "its defaults", k, score)
    return chosen, settings


def as_chosen(events: Events, settings: Mapping[str, Settings]) -> list[Scorer]:
    """Each peer at the settings that `settings` has by its name, as another run of `tuned` chose them."""
    return [_made(kind, settings[kind().name], events) for kind in CHOICES]


def _best_of(
    kind: Callable[..., Scorer], choices: Mapping[str, Sequence[Any]], events: Events, asked: Split, k: int
) -> tuple[Settings, float]:
    """Changes one setting after the other, and keeps what gains."""
    best: Settings = {}
    score = _score(kind, best, events, asked, k)
    more = {} if asked.filter_seen else {"repeats_listed": (False,)}
    for name, values in {**choices, **more}.items():
        for value in values:
            tried = best | {name: value}
            got = _score(kind, tried, events, asked, k)
            if got > score:
                best, score = tried, got
    return best, score


def _score(kind: Callable[..., Scorer], settings: Settings, events: Events, asked: Split, k: int) -> float:
    peer = _made(kind, settings, events)
    score = float(judge(peer, events, asked, [k], told=logging.DEBUG).judge.values()[f"ndcg@{k}"].mean())
    _log.info("%s with %s: NDCG@%d %.4f on validation", peer.name, settings or "its defaults", k, score)
    return score


def _made(kind: Callable[..., Scorer], settings: Settings, events: Events) -> Scorer:
    own = {name: value for name, value in settings.items() if name != "repeats_listed"}
    peer = kind(**own)
    return peer if settings.get("repeats_listed", True) else Unrepeated(peer, events)
