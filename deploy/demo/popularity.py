"""What the engine must beat: the most bought items, each purchase halved in weight every seven days of event time."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection

_KEPT = 256


class DecayedPopularity:
    """Scores of 2 ** (time / half-life): all fall alike as time goes on, so a purchase changes its own item only.

    Args:
        half_life_s: event time in which a purchase loses half of its weight.
        kept: length of the list that is kept sorted; `top` reaches further at the price of a full sort.
    """

    def __init__(self, half_life_s: float = 7 * 86400.0, kept: int = _KEPT) -> None:
        self._half_life_ms = half_life_s * 1000
        self._kept = kept
        self._start_ms: int | None = None
        self._score: dict[str, float] = {}
        self._best: list[tuple[float, str]] = []  # (-score, item), the best `kept`; rising scores alone can enter

    def add(self, item_id: str, time_ms: int) -> None:
        """Counts one purchase."""
        if self._start_ms is None:
            self._start_ms = time_ms
        old = self._score.get(item_id, 0.0)
        new = old + 2.0 ** ((time_ms - self._start_ms) / self._half_life_ms)
        self._score[item_id] = new
        if self._best and len(self._best) >= self._kept and (-new, item_id) > self._best[-1]:
            return
        if old and (-old, item_id) <= self._best[-1]:
            del self._best[bisect_left(self._best, (-old, item_id))]
        insort(self._best, (-new, item_id))
        del self._best[self._kept :]

    def top(self, k: int, without: Collection[str] = ()) -> list[str]:
        """The k most popular items, best first, ties by id, without those named."""
        best = self._best
        if k + len(without) > self._kept:
            best = sorted((-score, item_id) for item_id, score in self._score.items())
        found: list[str] = []
        for _, item_id in best:
            if len(found) == k:
                break
            if item_id not in without:
                found.append(item_id)
        return found
