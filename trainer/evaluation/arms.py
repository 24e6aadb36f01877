"""The model's arms: what being live is worth.

Shapes: B questions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions
from trainer.evaluation.ousel import OuselScorer


class FrozenOusel:
    """Nothing is learned or seen after training: neither state nor histories go on."""

    name = "ousel_frozen"
    live = False

    def __init__(self, ousel: OuselScorer) -> None:
        self._ousel = ousel
        self._end = 0

    def fit(self, events: Events, train: Ints) -> None:
        self._ousel.fit(events, train)
        self._end = int(train[-1]) + 1 if len(train) else 0

    def observe(self, positions: Ints) -> None:
        pass

    def lists(
        self, questions: Questions, k: int, *, filter_seen: bool, among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int32]:
        """See `Lister`."""
        late = np.concatenate([[0], (questions.order >= self._end).cumsum()])
        later = late[questions.cut] - late[questions.first]  # what lies behind training is at the end of a history
        known = Questions(questions.order, questions.first, questions.cut - later, questions.end)
        return self._ousel.lists(known, k, filter_seen=filter_seen, among=among)


class LiveOusel:
    """The log goes on between the questions, where the protocol itself asks of a state that stands still."""

    name = "ousel_live"
    live = True

    def __init__(self, ousel: OuselScorer) -> None:
        self._ousel = ousel

    def fit(self, events: Events, train: Ints) -> None:
        self._ousel.fit(events, train)

    def observe(self, positions: Ints) -> None:
        self._ousel.observe(positions)

    def lists(
        self, questions: Questions, k: int, *, filter_seen: bool, among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int32]:
        """See `Lister`."""
        return self._ousel.lists(questions, k, filter_seen=filter_seen, among=among)
