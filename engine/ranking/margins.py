"""How far a candidate may move in the embedding space before the list that weighed it can become another.

A catalog record with another title moves its item a little. Most lists that weigh the item do not hold it, and would be
the same if they were made again: the ranker's slope bounds how much a score rises by a move of the cosine, so the gap
to the list's last score says which moves are too small to matter.

Shapes: B lists, C candidates of each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.features.candidates import INDEX_BIT
from engine.inference.ranker_forward import Slope
from engine.kernel_cache import record
from engine.ranking.list_kernels import Listable, Ranked
from engine.state.kernels import compiled

ROUNDING = 1e-5  # by which a cosine that is computed here may differ from the index's
_SCORE_ROUNDING = 1e-5  # by which two computations of one score may differ, as a share of it

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@record("i4[::1]", "f4[::1]", "f4[::1]", "i8[::1]")
class Margins(NamedTuple):
    """Cosines between which the rows of B lists may lie without changing them.

    Attributes:
        row: of all lists, one list's behind the other's: first what can't be listed, then the candidates.
        low, high: of each row. Nothing lies between them where any move may matter; `low` is nan for the items of the
            list itself.
        first: [B + 1] where the rows of each list begin.
    """

    row: Ints
    low: Floats
    high: Floats
    first: Longs


@compiled("Margins(Listable, f4[:,::1], Ranked, i8[::1], f4[::1], Slope)")
def margins_of(listable: Listable, cosine: Floats, ranked: Ranked, k: Longs, floor: Floats, slope: Slope) -> Margins:
    """Of B lists, and of what can't be listed: that matters only where it takes a place in the index.

    Args:
        cosine: [B, C] of the candidates.
        k: [B] how many items were asked for; a list with fewer takes whatever may be listed.
        floor: [B] the cosine that an item needs to be found by the index.
    """
    users, gone = len(k), len(listable.hidden)
    size = gone + listable.size.sum()
    row, first = np.empty(size, np.int32), np.zeros(users + 1, np.int64)
    low, high = np.empty(size, np.float32), np.empty(size, np.float32)
    to = 0
    for b in range(users):
        for h in range(listable.first[b], listable.first[b + 1]):
            row[to], low[to], high[to] = listable.hidden[h], -np.inf, np.inf
            if listable.indexed[h] and listable.hit[h]:
                low[to] = floor[b] + ROUNDING
            elif listable.indexed[h]:
                high[to] = floor[b] - ROUNDING
            to += 1
        count, score = listable.size[b], ranked.score[b]
        row[to : to + count] = listable.row[b, :count]
        low[to : to + count], high[to : to + count] = np.inf, -np.inf
        last = np.inf
        for j in range(ranked.size[b]):
            at = np.searchsorted(listable.row[b, :count], ranked.row[b, j])
            low[to + at] = np.nan
            last = min(last, np.float64(score[at]))
        for c in range(count if ranked.size[b] == k[b] else 0):
            gap = last - score[c] - _SCORE_ROUNDING * (abs(last) + abs(score[c]) + 1.0)
            if np.isnan(low[to + c]) or not gap > 0.0:
                continue
            most = cosine[b, c] + gap / slope.most if slope.most > 0.0 else np.inf
            least = cosine[b, c] + gap / slope.least if slope.least < 0.0 else -np.inf
            # One that the index no longer finds, or finds only now, gives its place to another item, or takes one.
            if listable.source[b, c] & INDEX_BIT:
                least = max(least, floor[b] + ROUNDING)
            else:
                most = min(most, floor[b] - ROUNDING)
            low[to + c], high[to + c] = np.float32(least), np.float32(most)
        to += count
        first[b + 1] = to
    return Margins(row, low, high, first)
