"""Session neighborhoods with vectors that fade toward the past: V-SKNN.

Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", User Modeling and User-Adapted
Interaction 2018, section 3.4.

Shapes: B questions, N items, L distinct items of a running session, C candidates, K neighbors.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Ints
from trainer.evaluation.peers.session_index import Query, SessionIndex, nearest
from trainer.evaluation.peers.session_neighbors import SessionNeighbors

Fading = Literal["same", "linear", "share", "quadratic", "log", "div", "div_square"]


class SessionKNN(SessionNeighbors):
    """Items of the k sessions most like the running one.

    The similarity of a past session is the sum of the weights, by `weighting`, of the items that it shares with the
    running session. Each of its items earns that similarity, times the weight, by `decay`, of the newest shared item,
    times 1 + idf * ln(sessions / sessions with the item).
    """

    name = "session_knn"

    def __init__(
        self,
        k: int = 500,
        sample: int = 5000,
        weighting: Fading = "log",
        decay: Fading = "div_square",
        idf: float = 1.0,
        repeats: bool = False,
        window: int = 50,
    ) -> None:
        super().__init__(k, sample, repeats, window)
        for name, fading in (("weighting", weighting), ("decay", decay)):
            if fading not in get_args(Fading):
                raise ValueError(f"{name} must be one of {', '.join(get_args(Fading))}, got {fading!r}")
        if idf < 0:
            raise ValueError(f"idf must be >= 0, got {idf}")
        self.weighting, self.decay, self.idf = weighting, decay, idf

    def _item_weight(self, index: SessionIndex) -> NDArray[np.float64]:
        """[N] the rarer, the more."""
        return np.asarray(1 + self.idf * np.log(max(1, len(index)) / np.maximum(index.frequency, 1)), np.float64)

    def _votes(self, index: SessionIndex, query: Query) -> NDArray[np.float64]:
        found = index.candidates(query, fade(self.weighting, query.age, query.length), self.sample)
        found = found.select(nearest(found.overlap, self.k))
        vote = found.overlap * fade(self.decay, found.age, query.length)  # [K]
        place, neighbor = index.events_of(found.row)
        if not self.repeats:
            kept = index.latest[place]
            place, neighbor = place[kept], neighbor[kept]
        return np.asarray(np.bincount(index.item[place], vote[neighbor], minlength=len(index.count)), np.float64)


def fade(kind: Fading, age: Ints, length: int) -> NDArray[np.float64]:
    """Weights by age in a session of `length` events, where 0 is the newest event: 1 and falling, but for "log".

    "share" is the position from the start as a part of the length; "quadratic" its square; "linear" loses a tenth with
    each step; "log" begins at 1 / log10(1.7); "div" is 1, 1/2, 1/3 and so on, and "div_square" its square.
    """
    match kind:
        case "same":
            return np.ones(len(age))
        case "linear":
            return np.maximum(0.0, 1 - age / 10)
        case "share":
            return 1 - age / length
        case "quadratic":
            return (1 - age / length) ** 2
        case "log":
            return 1 / np.log10(age + 1.7)
        case "div":
            return 1 / (age + 1)
        case "div_square":
            return 1 / (age + 1) ** 2
