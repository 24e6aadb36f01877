"""Personal frequency: what the asker had most often comes first.

On baskets and on repeated listening this is the scorer to beat.

Shapes: B questions, N items, L distinct items of a history.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.log import Events, Ints, Questions
from trainer.evaluation.peers.popularity import DecayedPopularity


class PersonalFrequency:
    """Items of the history by how often, then by how recently, then all others by decayed popularity."""

    name = "frequency"

    def __init__(self, half_life: float | None = None) -> None:
        self._popularity = DecayedPopularity(half_life)
        self._events: Events | None = None

    def fit(self, events: Events, train: Ints) -> None:
        self._events = events
        self._popularity.fit(events, train)

    def observe(self, positions: Ints) -> None:
        """Counts for the popularity; the histories come with the questions."""
        self._popularity.observe(positions)

    def score(self, questions: Questions) -> NDArray[np.float32]:
        assert self._events is not None, "fit comes first"
        count = self._popularity.count
        rest = (count / (count.max(initial=0.0) + 1.0)).astype(np.float32)
        scores = np.tile(np.minimum(rest, np.float32(1)), (len(questions), 1))
        for at, row in enumerate(scores):
            history = self._events.item[questions.history(at)][::-1]
            item, age, times = np.unique(history, return_index=True, return_counts=True)  # [L] each
            order = np.lexsort((-age, times))
            # Ranks, not counts: float32 has no room for count, recency and popularity in one number.
            row[item[order]] = np.arange(2, len(item) + 2)
        return scores
