"""Items first seen after training: which they are, and popularity as it was when training ended.

Shapes: N items, B questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions, Scorer


def held_out(item_ids: Sequence[str], share: float) -> NDArray[np.bool_]:
    """[N] about `share` of the items, drawn by their ids alone: the same in every run and every log.

    Raises:
        ValueError: `share` is not above 0 and below 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"cold share must be above 0 and below 1, got {share}")
    return _draws(item_ids, b"held out") < share


def numbered_by_hash(events: Events) -> Events:
    """The same log with its items numbered in an order that says nothing of them.

    Files number items as they come up, popular ones first, and of equal scores the lower number wins: a scorer that
    knows nothing of cold items, or the same of many, would be told by that which of them were popular.
    """
    order = np.argsort(_draws(events.items, b"number"), kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return replace(events, item=number[events.item], items=[events.items[at] for at in order.tolist()])


class Frozen:
    """A scorer that takes in nothing more once it is fitted."""

    live = False

    def __init__(self, scorer: Scorer) -> None:
        self.name = f"{scorer.name}_frozen"
        self._scorer = scorer

    def fit(self, events: Events, train: Ints) -> None:
        self._scorer.fit(events, train)

    def observe(self, positions: Ints) -> None:
        pass

    def score(self, questions: Questions) -> NDArray[np.float32]:
        return self._scorer.score(questions)


def _draws(ids: Sequence[str], purpose: bytes) -> NDArray[np.float64]:
    """[ids] a number from 0 to 1 of each id, for each purpose another."""
    digests = b"".join(hashlib.blake2b(one.encode(), digest_size=8, person=purpose).digest() for one in ids)
    return np.frombuffer(digests, "<u8") / 2**64
