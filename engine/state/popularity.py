"""Exponentially decayed popularity, O(1) per event, with its top always at hand.

A score is a sum of weight * 2 ** (time / half-life), scaled by a power of two that follows the newest event. Scaling by
powers of two is exact in floating point, so the scores do not depend on how the log was cut into batches (forward
decay: Cormode et al., ICDE 2009).

Shapes: N items, E events in a batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Headroom in doublings before the scale moves: 2**64 above and below stays far from the limits of float64.
_STRIDE = 64


class Popularity:
    """Decayed counts per item, and the `top` most popular rows in order."""

    def __init__(self, half_life_s: float, top: int) -> None:
        self._half_life_ms = max(1, int(half_life_s * 1000))
        self._landmark = 0  # in half-lives; always a multiple of _STRIDE
        self._limit = top
        self.score = np.zeros(0, dtype=np.float64)  # [N]
        self._hidden = np.zeros(0, dtype=bool)  # [N] deleted items
        self._items = 0
        self._top = np.zeros(0, dtype=np.int64)

    def grow(self, items: int) -> None:
        """Makes room for rows 0..items-1; new rows may enter the top with a score of 0 while it is short."""
        if items <= self._items:
            return
        if items > len(self.score):
            more = max(items, 2 * len(self.score), 1024) - len(self.score)
            self.score = np.concatenate([self.score, np.zeros(more)])
            self._hidden = np.concatenate([self._hidden, np.zeros(more, dtype=bool)])
        new = np.arange(self._items, min(items, self._items + self._limit - len(self._top)))
        self._items = items
        self._merge(new)

    def fold(self, item: NDArray[np.int64], time_ms: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        """Counts E events in log order."""
        if len(item) == 0:
            return
        halvings, rest_ms = np.divmod(time_ms, self._half_life_ms)
        newest = int(halvings.max())
        if newest >= self._landmark + _STRIDE:
            landmark = newest - newest % _STRIDE
            self.score = np.ldexp(self.score, self._landmark - landmark)
            self._landmark = landmark
        mantissa = weight * np.exp2(rest_ms / self._half_life_ms)
        np.add.at(self.score, item, np.ldexp(mantissa, (halvings - self._landmark).astype(np.int32)))
        # Between events every score decays alike, so only those just counted can rise into the top.
        self._merge(np.unique(item))

    def hidden(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[len(rows)] True where an item is kept out of the top."""
        return self._hidden[rows]

    def hide(self, rows: NDArray[np.int64], hidden: NDArray[np.bool_]) -> None:
        """Keeps deleted items out of the top, or lets them back."""
        self._hidden[rows] = hidden
        self._top = np.zeros(0, dtype=np.int64)
        self._merge(np.arange(self._items))

    def top(self, k: int | None = None) -> NDArray[np.int64]:
        """The k (default: all that are kept) most popular rows, best first, ties by row."""
        return self._top[:k]

    def share(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """[len(rows)] the score of `rows` (default all) over the sum of all scores; zeros before the first event."""
        total = self.score[: self._items].sum()
        score = self.score[: self._items] if rows is None else self.score[rows]
        return score / total if total > 0 else np.zeros_like(score)

    def _merge(self, rows: NDArray[np.int64]) -> None:
        candidates = np.union1d(self._top, rows[~self._hidden[rows]])
        order = np.lexsort((candidates, -self.score[candidates]))
        self._top = candidates[order[: self._limit]].astype(np.int64)
