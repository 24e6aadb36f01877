"""What the session neighborhoods have in common: they search one index, and answer question by question.

Shapes: B questions, N items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions
from trainer.evaluation.peers.popularity import rank_rest
from trainer.evaluation.peers.session_index import Query, SessionIndex


class SessionNeighbors(ABC):
    """Scores items by the votes of the sessions most like the running one, and those without a vote by popularity.

    Which sessions these are, and how they vote, is what a method adds.

    Attributes:
        k: how many neighbors vote.
        sample: how many of the most recent sessions with a shared item are compared.
        repeats: whether an item that a neighbor has several times earns as often.
        window: events read of each session and history.
    """

    def __init__(self, k: int, sample: int, repeats: bool, window: int) -> None:
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        if sample < k:
            raise ValueError(f"sample must be >= k, got {sample} for k {k}")
        self.k, self.sample, self.repeats, self.window = k, sample, repeats, window
        self._index: SessionIndex | None = None

    def fit(self, events: Events, train: Ints) -> None:
        self._index = SessionIndex(events, self.window)
        self._index.add(train)

    def observe(self, positions: Ints) -> None:
        """Later events make sessions grow and become recent."""
        assert self._index is not None, "fit comes first"
        self._index.add(positions)

    def score(self, questions: Questions) -> NDArray[np.float32]:
        assert self._index is not None, "fit comes first"
        index = self._index
        index.refresh()
        weight = self._item_weight(index)
        scores = np.zeros((len(questions), len(index.count)), np.float32)
        for at in range(len(questions)):
            history = questions.history(at)
            if len(history) and len(index):
                scores[at] = self._votes(index, index.query(history)) * weight
        rank_rest(scores, index.count)
        return scores

    @abstractmethod
    def _votes(self, index: SessionIndex, query: Query) -> NDArray[np.float64]:
        """[N] what the neighbors of one running session say."""

    def _item_weight(self, index: SessionIndex) -> NDArray[np.float64] | float:
        """[N] what a vote counts, item by item."""
        return 1.0
