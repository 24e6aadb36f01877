"""What every index answers, and how the best k are picked.

Shapes: B queries, D dimensions, n candidates, k results. Vectors are float32 and L2-normalised, so the score, the inner
product, is the cosine; an all-zero vector scores 0 with everything.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.index.best import Hits, pick_best

__all__ = ["Hits", "Index", "latest", "merged", "top_k"]

_WIDE = 4096  # candidates


class Index(Protocol):
    """Rows with a vector each, searched by inner product."""

    def search(self, queries: NDArray[np.float32], k: int) -> Hits:
        """The k best rows for each of the queries [B, D]."""


def top_k(row: NDArray[np.int64], score: NDArray[np.float32], k: int) -> Hits:
    """The k best candidates of each query; equal scores go to the lower row.

    Args:
        row: [n], or [B, n] where each query has its own candidates.
        score: [B, n]; -inf hides a candidate.
        k: >= 0.
    """
    row = row if row.ndim == 2 else row[None]
    if score.shape[1] > max(_WIDE, k):
        # Numpy picks from many with wide steps.
        row, score = _unordered_top_k(np.broadcast_to(row, score.shape), score, k)
    return merged(row, score, row[:, :0], score[:, :0], k)


def merged(
    row: NDArray[np.int64],
    score: NDArray[np.float32],
    more_row: NDArray[np.int64],
    more_score: NDArray[np.float32],
    k: int,
) -> Hits:
    """`top_k` of n candidates and of some more."""
    batch = len(score)
    hits = Hits(np.empty((batch, k), np.int64), np.empty((batch, k), np.float32))
    pick_best(row, score, more_row, more_score, hits.row, hits.score)
    return hits


def _unordered_top_k(
    row: NDArray[np.int64], score: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    n = score.shape[1]
    pick = np.argpartition(score, n - k, axis=1)[:, n - k :]  # [B, k], the k-th best first
    kth = np.take_along_axis(score, pick[:, :1], axis=1)  # [B, 1]
    # Partitioning picks any of the candidates that tie for the last place; the rule picks the lower rows.
    tied = (np.count_nonzero(score >= kth, axis=1) > k) & (kth[:, 0] > -np.inf)
    for b in np.flatnonzero(tied):
        candidates = np.flatnonzero(score[b] >= kth[b])
        pick[b] = candidates[np.lexsort((row[b, candidates], -score[b, candidates]))[:k]]
    return np.take_along_axis(row, pick, axis=1), np.take_along_axis(score, pick, axis=1)


def latest(rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each row once, ascending, with the last of its vectors: rows [R], vectors [R, D]."""
    if (np.diff(rows) > 0).all():
        return rows, vectors
    rows, last = np.unique(rows[::-1], return_index=True)
    return rows, vectors[len(vectors) - 1 - last]
