"""Settings that follow from the log, where nobody has set them: what fits one shop is far off for another.

A log is sparse where an item has few events and a user few, too: then what the encoders learn by heart is most of what
they learn, and width with much dropout is worth more than depth.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from engine.model.recommender import ModelShape
from trainer.config import Recipe, TrainSection
from trainer.replay import EventLog

_log = logging.getLogger(__name__)

_SPARSE_EVENTS = 20  # of an item, and of a user in the middle: with fewer of both a log is sparse
_POSITIONS = 2000  # that a step learns from, about: fewer make the gradients noisy, more make steps rare
_LONG = 0.9  # share of the histories that a window covers
_WIDE, _NARROW = 256, 64
_MOST_IDS = 2**25  # numbers of the learned ids: beyond, width costs more steps, lists and memory than it is worth


@dataclass(frozen=True)
class Facts:
    """What rules go by.

    Attributes:
        users, items: those with events.
        median: events of the user in the middle.
        length: events that most users have no more of.
    """

    events: int
    users: int
    items: int
    median: float
    length: float

    @classmethod
    def of(cls, log: EventLog) -> Facts:
        """Counts them."""
        if len(log) == 0:
            return cls(0, 0, 0, 0.0, 0.0)
        by_user = torch.bincount(log.user)
        by_user = by_user[by_user > 0].double()
        items = int((torch.bincount(log.item) > 0).sum())
        return cls(len(log), len(by_user), items, float(by_user.median()), float(by_user.quantile(_LONG)))

    @property
    def is_sparse(self) -> bool:
        return self.events < _SPARSE_EVENTS * self.items and self.median < _SPARSE_EVENTS

    @property
    def width(self) -> int:
        """Of embeddings, a power of two: wide on a sparse log, as long as the catalog lets it be."""
        width = _WIDE if self.is_sparse else _NARROW
        while width > _NARROW and width * self.items > _MOST_IDS:
            width //= 2
        return width


def settled(config: TrainSection, log: EventLog, history: int, previous: ModelShape | None = None) -> Recipe:
    """The settings with those that are None filled in.

    Args:
        history: events of a user that the engine keeps: a longer window could not be served.
        previous: of a model to start from, whose shape is kept: another could take over nothing of what it learned.
    """
    facts = Facts.of(log)
    sparse = facts.is_sparse
    window = config.window or min(history, 128, max(16, _power_of_two(facts.length)))
    many = facts.items > config.full_softmax
    by_rule: dict[str, Any] = {
        "dim": config.heads * -(-facts.width // config.heads),
        "blocks": 1 if facts.events < _SPARSE_EVENTS * facts.items else 2,
        "window": window,
        "dropout": 0.6 if sparse else 0.2,
        "learning_rate": 1e-3 if sparse else 2e-3,
        "weight_decay": 0.1 if sparse else 0.05,
        "min_count": 2 if sparse else 5 if many else 1,
        "batch": int(min(128, max(32, _POSITIONS / max(1.0, min(facts.length, window))))),
    }
    if previous is not None:
        by_rule |= previous.model_dump(include={"dim", "blocks", "window"})
    missing = {name: value for name, value in by_rule.items() if getattr(config, name) is None}
    if missing:
        _log.info(
            "%d events of %d users and %d items%s: %s", facts.events, facts.users, facts.items,
            ", a sparse log" if sparse else "", ", ".join(f"{name} {value:g}" for name, value in missing.items()),
        )  # fmt: skip
    return Recipe(**config.model_dump() | missing)


def _power_of_two(least: float) -> int:
    """The first one that is not below `least`."""
    size = 1
    while size < least:
        size *= 2
    return size
