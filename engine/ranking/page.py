"""The k best of the candidates that may be listed.

Shapes: B queries, C candidates of each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.ranking.query import RankedItem, Source
from engine.state.kernels import compiled
from engine.state.state import State

# Source bits of a candidate -> sources, for every combination there is.
_SOURCES = tuple(tuple(s for s in Source if bits & (1 << (s - 1))) for bits in range(1 << len(Source)))

Longs = NDArray[np.int64]


class Page(NamedTuple):
    """The items of one list, best first, and their rows [n]."""

    items: tuple[RankedItem, ...]
    rows: Longs


def pages(
    rows: Longs, score: NDArray[np.floating], bits: Longs, allowed: NDArray[np.bool_], k: list[int], state: State
) -> list[Page]:
    """The k[b] best of each query, best first; ties go to the lower row.

    Args:
        rows, score, bits: [B, C] candidates, their scores and their sources.
        allowed: [B, C] those that may be listed.
    """
    places = np.empty((len(rows), min(max(k), rows.shape[1])), np.int64)
    count = _best(rows, score.astype(np.float64), allowed, np.array(k), places)
    best = [places[b, :n] for b, n in enumerate(count.tolist())]
    return [page_of(rows[b, at], score[b, at], bits[b, at], state) for b, at in enumerate(best)]


def page_of(rows: Longs, score: NDArray[np.floating], bits: Longs, state: State) -> Page:
    """The list of these items [n], best first, with their scores and the bits of their sources."""
    ids, title = state.items.ids(), state.catalog.title
    listed = zip(rows.tolist(), score.tolist(), bits.tolist(), strict=True)
    return Page(tuple([RankedItem(ids[row], title[row], value, _SOURCES[bit]) for row, value, bit in listed]), rows)


@compiled("i8[::1](i8[:,:], f8[:,:], b1[:,:], i8[::1], i8[:,::1])")
def _best(rows: Longs, score: NDArray[np.float64], allowed: NDArray[np.bool_], k: Longs, places: Longs) -> Longs:
    """Fills `places` with columns of the best of each; returns how many there are, [B]."""
    count = np.zeros(len(rows), np.int64)
    for b in range(len(rows)):
        most = min(k[b], places.shape[1])
        n = 0
        for c in range(rows.shape[1]):
            if not allowed[b, c]:
                continue
            # Where the list is full and this is not better than its last, as for nearly all, it is one comparison.
            at = n
            while at > 0:
                other = places[b, at - 1]
                better = score[b, c] > score[b, other]
                if not (better or (score[b, c] == score[b, other] and rows[b, c] < rows[b, other])):
                    break
                if at < most:
                    places[b, at] = other
                at -= 1
            if at < most:
                places[b, at] = c
                n = min(n + 1, most)
        count[b] = n
    return count
