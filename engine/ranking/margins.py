"""How far a candidate may move in the embedding space before the list that weighed it can become another.

A catalog record with another title moves its item a little. Most lists that weigh the item do not hold it, and would be
the same if they were made again: the ranker's slope bounds how much a score rises by a move of the cosine, so the gap
to the list's last score says which moves are too small to matter.

Shapes: B lists, C candidates of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.inference.ranker_forward import Slope
from engine.ranking.candidates import Hidden
from engine.ranking.page import Page
from engine.ranking.query import Query
from engine.state.kernels import compiled

ROUNDING = 1e-5  # by which a cosine that is computed here may differ from the index's
_SCORE_ROUNDING = 1e-5  # by which two computations of one score may differ, as a share of it

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


class Margins(NamedTuple):
    """[B, C] cosines between which a candidate may lie without changing the list.

    Nothing lies between them where any move may matter; `low` is nan for the items of the list itself.
    """

    low: Floats
    high: Floats


def margins_of_hidden(hidden: Hidden, floor: float) -> Margins:
    """[h] the same for items that the list can't hold: they matter only where they take a place in the index.

    Args:
        floor: the cosine that an item needs to be found by the index.
    """
    infinity = np.float32(np.inf)
    low = np.where(hidden.indexed & hidden.hit, np.float32(floor + ROUNDING), -infinity)
    high = np.where(hidden.indexed & ~hidden.hit, np.float32(floor - ROUNDING), infinity)
    return Margins(low, high)


def margins(
    rows: Longs,
    score: Floats,
    cosine: Floats,
    hit: NDArray[np.bool_],
    floor: Floats,
    pages: Sequence[Page],
    queries: Sequence[Query],
    slope: Slope,
) -> Margins:
    """Of the candidates [B, C] of B lists.

    Args:
        rows, score, cosine: [B, C] of the candidates; rows rise, -1 behind the last.
        hit: [B, C] whether the index found it.
        floor: [B] the cosine that an item needs to be found by the index.
        pages: the lists that were made of them.
    """
    listed = np.full((len(rows), max((len(page.row) for page in pages), default=0)), -1, np.int64)
    for b, page in enumerate(pages):
        listed[b, : len(page.row)] = page.row
    full = np.array([len(page.row) >= query.k for page, query in zip(pages, queries, strict=True)], np.bool_)
    low, high = np.full_like(score, np.inf), np.full_like(score, -np.inf)
    slopes = np.array([max(slope.most, 0.0), max(-slope.least, 0.0)])
    _measure(rows, score, cosine, hit, floor, listed, full, slopes, low, high)
    return Margins(low, high)


@compiled("void(i8[:,:], f4[:,:], f4[:,:], b1[:,:], f4[::1], i8[:,::1], b1[::1], f8[::1], f4[:,::1], f4[:,::1])")
def _measure(
    rows: Longs,
    score: Floats,
    cosine: Floats,
    hit: NDArray[np.bool_],
    floor: Floats,
    listed: Longs,
    full: NDArray[np.bool_],
    slopes: NDArray[np.float64],
    low: Floats,
    high: Floats,
) -> None:
    """Fills `low` and `high`, which come as margins that hold nothing.

    Args:
        listed: [B, k] rows of the lists, -1 behind the last.
        full: [B] whether a list has as many items as were asked for; another takes whatever may be listed.
        slopes: by which a score rises at most as the cosine rises, and as it falls.
    """
    for b in range(len(rows)):
        count = 0
        while count < rows.shape[1] and rows[b, count] >= 0:
            count += 1
        last = np.inf
        for j in range(listed.shape[1]):
            if listed[b, j] < 0:
                break
            at = np.searchsorted(rows[b, :count], listed[b, j])
            low[b, at] = np.nan
            last = min(last, np.float64(score[b, at]))
        if not full[b] or listed.shape[1] == 0:
            continue
        for c in range(count):
            gap = last - score[b, c] - _SCORE_ROUNDING * (abs(last) + abs(score[b, c]) + 1.0)
            if np.isnan(low[b, c]) or not gap > 0.0:
                continue
            most = cosine[b, c] + gap / slopes[0] if slopes[0] > 0.0 else np.inf
            least = cosine[b, c] - gap / slopes[1] if slopes[1] > 0.0 else -np.inf
            # One that the index no longer finds, or finds only now, gives its place to another item, or takes one.
            if hit[b, c]:
                least = max(least, floor[b] + ROUNDING)
            else:
                most = min(most, floor[b] - ROUNDING)
            low[b, c], high[b, c] = np.float32(least), np.float32(most)
