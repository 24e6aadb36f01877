"""Decayed popularity: what everybody does, recent events more than old ones.

Shapes: B questions, N items, E events.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions

_SHARE = 1 / 24  # of the training span


class DecayedPopularity:
    """Every event counts 1 when it happens and half as much after each half-life.

    A question is asked now, after all that was fitted and observed: letting all counts decay further, to the very
    moment of the question, would scale them by one factor and change no ranking.

    Attributes:
        half_life: in seconds where the log is timed, else in events of the log. None is a 24th of the time that
            training spans, six hours of six days and two weeks of a year, or infinite where the log is not timed: an
            order within each user says nothing about all of them together.
        count: [N] float64 decayed to the newest event.
    """

    name = "popularity"

    def __init__(self, half_life: float | None = None) -> None:
        if half_life is not None and not half_life > 0:
            raise ValueError(f"half_life must be > 0, got {half_life}")
        self.half_life = half_life
        self._half_life = math.inf
        self.count = np.zeros(0)
        self._events: Events | None = None
        self._newest = -math.inf

    def fit(self, events: Events, train: Ints) -> None:
        self._events = events
        self.count = np.zeros(len(events.items))
        self._newest = -math.inf
        if self.half_life is not None:
            self._half_life = self.half_life
        else:
            span = float(np.ptp(events.time[train])) if events.timed and len(train) else 0.0
            self._half_life = _SHARE * span or math.inf
        self.observe(train)

    def observe(self, positions: Ints) -> None:
        assert self._events is not None, "fit comes first"
        if not len(positions):
            return
        moment = self._events.time[positions] if self._events.timed else positions.astype(np.float64)  # [E]
        newest = float(moment[-1])
        # The newest event weighs 1, so that weights may vanish but never overflow.
        if math.isfinite(self._newest):
            self.count *= 0.5 ** ((newest - self._newest) / self._half_life)
        weight = 0.5 ** ((newest - moment) / self._half_life)
        self.count += np.bincount(self._events.item[positions], weight, minlength=len(self.count))
        self._newest = newest

    def score(self, questions: Questions) -> NDArray[np.float32]:
        return np.tile(self.count.astype(np.float32), (len(questions), 1))


def rank_rest(scores: NDArray[np.float32], count: NDArray[np.float64]) -> None:
    """Gives items without a score (0) of [B, N] one below 0, the higher the more popular, in place.

    A list must be filled to its end, and a neighborhood that knows too little is filled fairly so.
    """
    rest = (count / (count.max(initial=0.0) + 1.0) - 1.0).astype(np.float32)  # [N] in [-1, 0)
    for row in scores:  # by row: a mask of all would be as large as the scores
        np.copyto(row, rest, where=row == 0)
