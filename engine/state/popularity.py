"""Exponentially decayed popularity, O(1) per event, with its top always at hand.

A score is a sum of weight * 2 ** (time / half-life), scaled by a power of two that follows the newest event. Scaling by
powers of two is exact in floating point, so the scores do not depend on how the log was cut into batches (forward
decay: Cormode et al., ICDE 2009).

Shapes: N items, E events in a batch, H half-lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from engine.state.addresses import place_of
from engine.state.fold_kernels import TO_NOTHING, add_decayed
from engine.state.merged_kernels import Counts
from engine.state.table import Table

# Headroom in doublings before the scale moves: 2**64 above and below stays far from the limits of float64.
_STRIDE = 64
_BLOCK = 1024  # scores that are summed for themselves


class DecayedCounts:
    """Decayed counts of one slice's items, under several half-lives.

    Attributes:
        table: [N, H] float64 scores; that of half-life h at item i is `table[i, h] * 2 ** landmarks[h]`.
        half_lives_ms: [H].
        landmarks: [H] int64 scales, in half-lives; multiples of 64.
    """

    def __init__(self, items: int, half_lives_s: Sequence[float]) -> None:
        self.half_lives_ms = half_lives_ms(half_lives_s)
        self.landmarks = np.zeros(len(half_lives_s), np.int64)
        self.table = Table(items, (len(half_lives_s),), dtype=torch.float64)
        self._rows = 0

    def fold(self, item: NDArray[np.int64], time_ms: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        """Counts E events in log order; `weight` [E, H] under each half-life."""
        if len(item) == 0:
            return
        self.grow(int(item.max()) + 1)
        self.table.note(torch.from_numpy(item))
        first = 0
        while first < len(item):
            # A scale moves at a certain event of the log, not at the edge of some batch: tiny scores lose bits by it.
            halvings = time_ms[first:, None] // self.half_lives_ms
            moves = (halvings >= self.landmarks + _STRIDE).any(axis=1)
            last = first + int(moves.argmax()) if moves.any() else len(item)
            part = slice(first, last)
            add_decayed(
                self.table.array, self.half_lives_ms, self.landmarks, item[part], time_ms[part], weight[part]
            )  # fmt: skip
            if last < len(item):
                for h, halved in enumerate(halvings[last - first].tolist()):
                    self._move(h, halved)
            first = last

    def moves(self, newest_ms: int) -> bool:
        """Whether an event of this time moves a scale."""
        return bool((newest_ms // self.half_lives_ms >= self.landmarks + _STRIDE).any())

    def grow(self, rows: int) -> None:
        """Notes that rows 0..rows-1 may be counted."""
        self._rows = max(self._rows, rows)

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """What `add_decayed` takes of the counts, while no scale moves."""
        return self.table.array, self.half_lives_ms, self.landmarks

    def clear(self, rows: torch.Tensor) -> None:
        """Forgets the counts of `rows` [R]."""
        self.table.clear(rows)

    def restore(self, landmark: Sequence[int], rows: int) -> None:
        """Takes over the scales that belong to a table filled from a snapshot."""
        self.landmarks[:] = landmark
        self._rows = rows

    def _move(self, h: int, halvings: int) -> None:
        if halvings < self.landmarks[h] + _STRIDE:
            return
        landmark = landmark_of(halvings)
        rows = torch.arange(self._rows)
        score = self.table.get(rows)
        score[:, h] = torch.from_numpy(scaled(score[:, h].numpy(), self.landmarks[h] - landmark))
        self.table.put(rows, score)
        self.landmarks[h] = landmark


def half_lives_ms(half_lives_s: Sequence[float]) -> NDArray[np.int64]:
    """[H] half-lives as counts take them."""
    return np.array([max(1, int(half_life_s * 1000)) for half_life_s in half_lives_s])


def landmark_of(halvings: int) -> int:
    """The scale that belongs to a time given in half-lives."""
    return halvings - halvings % _STRIDE


def scaled(score: NDArray[np.float64], doublings: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """`score * 2 ** doublings`, which may lie far below what an int32 holds."""
    return np.ldexp(score, np.maximum(doublings, TO_NOTHING).astype(np.int32))


class TopItems:
    """Scores of all items, and the `limit` best rows in order, brought up to date when they are asked for.

    Items that may not be shown are hidden: they are not among the best. The next best rows are held in reserve behind
    the top, so that hiding some of the best does not cost a look at all items each time.

    All rows that reach the edge and are not hidden are held: in the top, or in the reserve, which is not sorted.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.score = np.zeros(0, dtype=np.float64)  # [N]
        self._hidden = np.zeros(0, dtype=bool)  # [N]
        self._items = 0
        self._top = np.zeros(0, dtype=np.int64)
        self._reserve = np.zeros(0, dtype=np.int64)
        self._held = np.zeros(0, dtype=bool)  # [N] in the top or in the reserve
        self._edge = _NO_EDGE
        self._changed: list[NDArray[np.int64]] = []
        self._changed_count = 0
        self._stale = True  # the whole top is to be made again
        self._total: float | None = 0.0  # A score that changes sets it to None; the next reader sums again.
        self._block_total = np.zeros(0)  # sums of `_BLOCK` scores each
        self._changed_blocks: set[int] = set()  # whose sums are no longer right

    def grow(self, items: int) -> None:
        """Makes room for rows 0..items-1; new rows may enter the top with a score of 0 while it is short."""
        if items <= self._items:
            return
        if items > len(self.score):
            # Whole blocks: what a sum comes to, bit for bit, must not depend on how the room has grown.
            blocks = -(-max(items, 2 * len(self.score)) // _BLOCK)
            more = blocks * _BLOCK - len(self.score)
            self.score = np.concatenate([self.score, np.zeros(more)])
            self._hidden = np.concatenate([self._hidden, np.zeros(more, dtype=bool)])
            self._held = np.concatenate([self._held, np.zeros(more, dtype=bool)])
            self._block_total = np.concatenate([self._block_total, np.zeros(blocks - len(self._block_total))])
        first, self._items = self._items, items
        self._note(np.arange(first, items))

    def put(self, rows: NDArray[np.int64], score: NDArray[np.float64]) -> None:
        """Sets the scores of distinct `rows`, none of which falls; all others have decayed alike meanwhile."""
        self.score[rows] = score
        self._total = None
        self._changed_blocks.update((rows // _BLOCK).tolist())
        self._note(rows)

    def replace(self, score: NDArray[np.float64]) -> None:
        """Sets all scores [items]."""
        self.score[: self._items] = score
        self._total = None
        self._changed_blocks.update(range(len(self._block_total)))
        self._stale = True

    def hidden(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[len(rows)] True where an item is kept out of the top."""
        return self._hidden[rows]

    def hide(self, rows: NDArray[np.int64], hidden: NDArray[np.bool_]) -> None:
        """Keeps some of the distinct `rows` [R] out of the top, and lets the others in."""
        changed = self._hidden[rows] != hidden
        rows, hidden = rows[changed], hidden[changed]
        self._hidden[rows] = hidden
        if self._stale:
            return
        gone = rows[hidden & self._held[rows]]
        if len(gone):
            self._held[gone] = False
            self._top = self._top[self._held[self._top]]
            self._reserve = self._reserve[self._held[self._reserve]]
        self._note(rows[~hidden])

    def top(self, k: int | None = None) -> NDArray[np.int64]:
        """The k (default: all that are kept) most popular rows that are not hidden, best first, ties by row."""
        if not self._stale and self._changed:
            self._merge(np.concatenate(self._changed))
        if not self._stale and len(self._top) < self.limit:
            self._merge(self._top[:0])  # The reserve fills the places of items that were hidden.
        if self._stale:
            self._make()
        self._changed, self._changed_count = [], 0
        return self._top[:k]

    @property
    def whole(self) -> bool:
        """Whether `top` has all items that are not hidden."""
        return len(self.top()) < self.limit

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[len(rows)] how many of the top come before each row; as many as there may be where it is not in the top."""
        place = np.full(max(self._items, 1), self.limit)
        top = self.top()
        place[top] = np.arange(len(top))
        return place[rows]

    @property
    def total(self) -> float:
        """The sum of all scores.

        It is a sum of sums, so that a few new scores do not cost a look at all, and yet a function of the scores alone.
        """
        if self._total is None:
            for block in self._changed_blocks:
                self._block_total[block] = self.score[block * _BLOCK : (block + 1) * _BLOCK].sum()
            self._changed_blocks.clear()
            self._total = float(self._block_total[: -(-self._items // _BLOCK)].sum())
        return self._total

    def share(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """[len(rows)] the score of `rows` (default all) over the sum of all scores; zeros before the first event."""
        total = self.total
        score = self.score[: self._items] if rows is None else self.score[rows]
        return score / total if total > 0 else np.zeros_like(score)

    def _note(self, rows: NDArray[np.int64]) -> None:
        """These may have risen into the top; with more of them than there are items it is made again instead."""
        if len(rows) == 0:
            return
        self._changed.append(rows)
        self._changed_count += len(rows)
        if self._stale or self._changed_count > self._items:
            self._stale, self._changed, self._changed_count = True, [], 0

    def _merge(self, rows: NDArray[np.int64]) -> None:
        """Takes in what has risen; leaves the top stale where all that are held are too few."""
        rows = rows[~self._hidden[rows] & ~self._held[rows]]
        rows = np.unique(rows[self._reaches(rows)])
        self._held[rows] = True
        others = np.concatenate([self._reserve, rows])
        # Nothing falls, so what stays below the last of a full top does not get in; most of what changes is such.
        full = len(self._top) == self.limit
        last = self.score[self._top].min() if full and self.limit else -np.inf
        rises = self.score[others] >= last
        best = most_popular(np.concatenate([self._top, others[rises]]), self.score)
        self._top, self._reserve = best[: self.limit], np.concatenate([best[self.limit :], others[~rises]])
        if len(self._reserve) > 2 * self.limit:
            best = most_popular(self._reserve, self.score)
            self._reserve = best[: self.limit]
            self._held[best[self.limit :]] = False
            self._edge = _Edge(float(self.score[self._reserve[-1]]), int(self._reserve[-1]))
        self._stale = len(self._top) < self.limit and self._edge is not _NO_EDGE

    def _reaches(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[len(rows)] whether a row is as good as the edge, or better."""
        score = self.score[rows]
        return (score > self._edge.score) | ((score == self._edge.score) & (rows <= self._edge.row))

    def _make(self) -> None:
        """Makes top and reserve again, from all items."""
        rows = np.flatnonzero(~self._hidden[: self._items])
        best = most_popular(rows, self.score, 2 * self.limit)
        self._held[:] = False
        self._held[best] = True
        self._top, self._reserve = best[: self.limit], best[self.limit :]
        cut = len(best) < len(rows)
        self._edge = _Edge(float(self.score[best[-1]]), int(best[-1])) if cut else _NO_EDGE
        self._stale = False


class _Edge(NamedTuple):
    """The worst row that was held when others were cut off, with its score at that time."""

    score: float
    row: int


_NO_EDGE = _Edge(-np.inf, -1)  # All that are not hidden are held.


def most_popular(rows: NDArray[np.int64], score: NDArray[np.float64], n: int | None = None) -> NDArray[np.int64]:
    """The n (default: all) best of distinct `rows` by their `score` [N], best first, ties by row."""
    if n is not None and len(rows) > n:
        own = score[rows]
        last = np.partition(own, -n)[-n] if n else np.inf
        better, equal = rows[own > last], np.sort(rows[own == last])
        rows = np.concatenate([better, equal[: n - len(better)]])
    return rows[np.lexsort((rows, -score[rows]))].astype(np.int64)


class Popularity(TopItems):
    """Decayed popularity of one log under several half-lives, with the top under the first."""

    def __init__(self, half_lives_s: Sequence[float], top: int, items: int) -> None:
        super().__init__(top)
        self._counts = DecayedCounts(items, half_lives_s)
        self._row_of = np.arange(1, items + 1, dtype=np.int32)
        self.grow(items)

    def fold(self, item: NDArray[np.int64], time_ms: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        """Counts E events in log order; `weight` [E, H]."""
        landmark = int(self._counts.landmarks[0])
        self._counts.fold(item, time_ms, np.ascontiguousarray(weight))
        if self._counts.landmarks[0] != landmark:
            self.replace(self._counts.table.data[: self._items, 0].numpy())
        elif len(item):
            rows = np.unique(item)
            self.put(rows, self._counts.table.data[torch.from_numpy(rows), 0].numpy())

    def counts(self) -> Counts:
        """Decayed counts of all items as compiled code reads them; those of one half-life are scaled alike."""
        table = self._counts.table.array
        rooms = np.array([(*place_of(table), *place_of(self._row_of))], np.int64)
        return Counts(rooms, table.shape[1], np.zeros((1, table.shape[1]), np.int64))
