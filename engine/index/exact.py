"""Exact search over a compact matrix that is edited in place.

It is the oracle for every other index, the whole index of a small catalog, and the delta of a large one.

Shapes: N one past the highest row seen, S rows held, C capacity, B queries, D dimensions.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.index.base import Hits, latest
from engine.index.best import Held, rescore_near
from engine.index.codes import Codes, rescore

# With fewer rows it costs more to tell which may be the best than to look at all.
CODED_FROM = 2048
# Where vectors are so alike that codes don't tell them apart, as before any training, they are tried once in so many
# searches.
_TRY_EVERY = 64
# Scores held at once: 64 MiB, however many queries and rows meet.
_MAX_SCORES = 2**24

T = TypeVar("T", bound=np.generic)


class ExactIndex:
    """Brute force over the current vectors. An update or a delete costs O(rows given), whatever the size."""

    def __init__(self, dim: int) -> None:
        self._size = 0
        self._rows = np.empty(0, np.int64)  # [C], the row in each slot
        self._vectors = np.empty((0, dim), np.float32)  # [C, D], the vector in each slot
        self._codes = Codes(dim)
        self._untried = 0  # searches to come for which codes won't be tried
        self._slot = np.empty(0, np.int64)  # [N], -1 where the row is absent

    @property
    def size(self) -> int:
        return self._size

    @property
    def rows(self) -> NDArray[np.int64]:
        """[S] in no particular order: a view, valid until the next edit."""
        return self._rows[: self._size]

    @property
    def vectors(self) -> NDArray[np.float32]:
        """[S, D] beside `rows`: a view, valid until the next edit."""
        return self._vectors[: self._size]

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of rows [...] as [..., D]; whatever lies there for a row that is absent."""
        return self._vectors.take(self._slot.take(rows), axis=0)

    def held(self) -> Held:
        """All of it for compiled code: views, valid until the next edit."""
        return Held(self._size, self._rows, self._slot, self._vectors)

    def update(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Adds or replaces rows [R] with vectors [R, D]; of a row given twice the last vector counts."""
        self.put(*latest(rows, vectors))

    def put(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """`update` with rows that rise, each once."""
        if len(rows) == 0:
            return
        if rows[-1] >= len(self._slot):
            self._slot = grown(self._slot, int(rows[-1]) + 1, fill=-1)
        new = rows[self._slot[rows] < 0]
        end = self._size + len(new)
        if end > len(self._rows):
            self._rows = grown(self._rows, end)
            self._vectors = grown(self._vectors, end)
            self._codes.grow(len(self._rows))
        self._slot[new] = np.arange(self._size, end)
        self._rows[self._size : end] = new
        self._size = end
        self._vectors[self._slot[rows]] = vectors
        self._codes.put(self._slot[rows], vectors)

    def delete(self, rows: NDArray[np.int64]) -> None:
        """Removes rows [R]; those not held are ignored."""
        rows = rows[rows < len(self._slot)]
        rows = np.unique(rows[self._slot[rows] >= 0])
        if len(rows) == 0:
            return
        freed = self._slot[rows]
        self._slot[rows] = -1
        # The matrix stays contiguous: the survivors of its tail move into the holes before it.
        end = self._size - len(freed)
        tail = np.arange(end, self._size)
        tail = tail[self._slot[self._rows[tail]] == tail]
        holes = freed[freed < end]
        self._rows[holes] = self._rows[tail]
        self._vectors[holes] = self._vectors[tail]
        self._codes.move(tail, holes)
        self._slot[self._rows[holes]] = holes
        self._size = end

    def search(self, queries: NDArray[np.float32], k: int, floor: NDArray[np.float32] | None = None) -> Hits:
        """The k best rows for each of the queries [B, D]; equal scores go to the lower row.

        Args:
            floor: [B] scores; rows below may be left out, which saves most of the time that picking the best takes.
        """
        queries = np.ascontiguousarray(queries)
        lowest = np.full(len(queries), -np.inf, np.float32) if floor is None else floor
        if self._size < CODED_FROM or k == 0:
            return self._search_all(queries, k, lowest)
        if self._untried:
            self._untried -= 1
            return self._search_all(queries, k, lowest)
        picks = self._codes.pick(queries, self._size, k, floor)
        hits = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        rescore(queries, self._vectors, self._rows, picks.slot, picks.count, lowest, hits.row, hits.score)
        many = np.flatnonzero(picks.count < 0)
        if 2 * len(many) > len(queries):
            self._untried = _TRY_EVERY - 1
        if len(many):
            every = self._search_all(queries[many], k, lowest[many])
            hits.row[many], hits.score[many] = every.row, every.score
        return hits

    def _search_all(self, queries: NDArray[np.float32], k: int, floor: NDArray[np.float32]) -> Hits:
        """By the products of all rows, which are quick and round as the library likes, and then by those that count."""
        hits = Hits(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32))
        if self._size == 0 or k == 0:
            return hits
        off = self._codes.off_by(np.sqrt(np.square(queries).sum(axis=1)))
        block = max(1, _MAX_SCORES // self._size)
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            near, bar = products(queries[part], self.vectors), floor[part] - off[part]
            if k < self._size:
                # The k-th best of these may be off, and so may be the one that it is compared with.
                kth = np.partition(near, self._size - k, axis=1)[:, self._size - k]
                bar = np.maximum(bar, kth - 2 * off[part])
            rescore_near(
                near, bar, queries[part], self.vectors, self.rows, floor[part], hits.row[part], hits.score[part]
            )
        return hits


def products(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """[B, S] of queries [B, D] and vectors [S, D], as the library rounds them for so many."""
    made: NDArray[np.float32] = queries @ vectors.T
    return np.ascontiguousarray(made)


def grown(array: NDArray[T], size: int, fill: float = 0) -> NDArray[T]:
    """A copy with at least `size` entries, at least doubled so that growth stays cheap; new entries hold `fill`."""
    capacity = max(size, 2 * len(array), 64)
    larger = np.full((capacity, *array.shape[1:]), fill, array.dtype)
    larger[: len(array)] = array
    return larger
