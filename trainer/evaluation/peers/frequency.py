"""Personal frequency: what the asker had most often comes first.

On baskets and on repeated listening this is the scorer to beat.

Shapes: B questions, N items.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions
from trainer.evaluation.peers.popularity import DecayedPopularity

_CROWD = 100.0  # events of one's own that all of popularity weighs as much as
_SHARE = 1 / 6  # of the time that training spans: two months of a year
_NEWER = 1e-4  # settles ties of own items by recency, where time doesn't


class PersonalFrequency:
    """Items by how often the asker had them, the old events fading, mixed with decayed popularity.

    Args:
        half_life: of an event of one's own, in seconds where the log is timed, else in events of the history. None is
            a sixth of the time that training spans, or infinite where the log is not timed.
        crowd: how many events of one's own all of popularity together weighs. This and the sixth were chosen on
            baskets of groceries.
    """

    name = "frequency"

    def __init__(self, half_life: float | None = None, crowd: float = _CROWD) -> None:
        self.half_life = half_life
        self._crowd = crowd
        self._half_life = math.inf
        self._popularity = DecayedPopularity()
        self._events: Events | None = None

    def fit(self, events: Events, train: Ints) -> None:
        self._events = events
        self._popularity.fit(events, train)
        span = float(np.ptp(events.time[train])) if events.timed and len(train) else 0.0
        self._half_life = self.half_life or _SHARE * span or math.inf

    def observe(self, positions: Ints) -> None:
        """Counts for the popularity; the histories come with the questions."""
        self._popularity.observe(positions)

    def score(self, questions: Questions) -> NDArray[np.float32]:
        assert self._events is not None, "fit comes first"
        count = self._popularity.count
        crowd = (self._crowd * count / max(count.sum(), 1e-9)).astype(np.float32)
        scores = np.tile(crowd, (len(questions), 1))
        for at, row in enumerate(scores):
            history = questions.history(at)
            place = np.arange(len(history))
            when = self._events.time[history] if self._events.timed else place
            weight = 0.5 ** ((when[-1:] - when) / self._half_life)
            own = np.bincount(self._events.item[history], weight, minlength=len(row))
            newest = np.zeros(len(row))
            newest[self._events.item[history]] = (place + 1) / (len(history) + 1)  # the last write of an item counts
            row += (own + _NEWER * newest).astype(np.float32)
        return scores
