"""What live searches find of what they should: a few of them are compared with an exact search.

Shapes: B queries, D dimensions.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.index.base import Hits
from engine.index.hnsw import RECALL_K

_LATEST = 100
# With fewer, one bad search would speak for all.
_ENOUGH = 20
# An exact search of a large catalog takes long; so many times as long is waited after it.
_REST = 200

Search = Callable[[NDArray[np.float32], int], Hits]


class RecallProbe:
    """Picks one query in `every` (0: none), at most one per `interval_s`, and keeps what came out.

    Attributes:
        count: comparisons made so far.
    """

    def __init__(self, every: int, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._every = every
        self._interval_s = interval_s
        self._clock = clock
        self._latest: deque[float] = deque(maxlen=_LATEST)
        self._of_graph: deque[float] = deque(maxlen=_LATEST)  # those with the graph that serves now
        self._searched = 0  # queries since one was picked
        self._picked: NDArray[np.float32] | None = None  # [1, D]
        self._next_s = -np.inf

    @property
    def recall(self) -> float:
        """Mean of the latest comparisons; nan before the first."""
        return float(np.mean(self._latest)) if self._latest else float("nan")

    def offer(self, queries: NDArray[np.float32]) -> None:
        """Takes note of queries [B, D] that are searched for now; costs next to nothing."""
        self._searched += len(queries)
        if self._every and self._searched >= self._every and len(queries):
            self._searched = 0
            self._picked = queries[-1:].copy()

    def due(self) -> NDArray[np.float32] | None:
        """The query [1, D] that is to be compared now, or None."""
        if self._picked is None or self._clock() < self._next_s:
            return None
        query, self._picked = self._picked, None
        return query

    def measure(self, query: NDArray[np.float32], search: Search, exact: Search) -> None:
        """Makes the search [1, D] both ways and keeps its recall@100."""
        start_s = self._clock()
        wanted = exact(query, RECALL_K).score
        found = search(query, RECALL_K).score
        there = wanted > -np.inf
        if there.any():
            # By score, not by row: among equals any will do.
            kth = wanted[there].min()
            recall = float((found >= kth).sum() / there.sum())
            self._latest.append(recall)
            self._of_graph.append(recall)
            self.count += 1
        end_s = self._clock()
        self._next_s = end_s + max(self._interval_s, _REST * (end_s - start_s))

    def low(self, bound: float) -> bool:
        """Whether there are enough comparisons with the graph that serves now, and they find less than `bound`."""
        return len(self._of_graph) >= _ENOUGH and float(np.mean(self._of_graph)) < bound

    def begin_anew(self) -> None:
        """Another graph serves: what the one before found says nothing of it."""
        self._of_graph.clear()
