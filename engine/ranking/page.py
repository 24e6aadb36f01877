"""The k best of the candidates.

Shapes: B queries, C candidates of each, n items of a list.
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
    """The rows [n] of one list, best first, their scores [n], and the bits of their sources [n]."""

    row: Longs
    score: NDArray[np.floating]
    source: Longs

    @property
    def last(self) -> int:
        """Row of the last item, -1 where there is none."""
        return int(self.row[-1]) if len(self.row) else -1

    def items(self, state: State) -> tuple[RankedItem, ...]:
        """As an app gets them."""
        ids, title = state.items.ids(), state.catalog.title
        listed = zip(self.row.tolist(), self.score.tolist(), self.source.tolist(), strict=True)
        return tuple([RankedItem(ids[row], title[row], value, _SOURCES[bit]) for row, value, bit in listed])


@compiled("i8[::1](i8[:,::1], f4[:,::1], i8[::1], i8[:,::1])")
def best_places(rows: Longs, score: NDArray[np.float32], k: Longs, places: Longs) -> Longs:
    """Fills `places` [B, n] with columns of the k[b] best of each query, best first; ties go to the lower row.

    Args:
        rows, score: [B, C] candidates and their scores; -1 where there is none.

    Returns:
        How many there are of each, [B].
    """
    count = np.zeros(len(rows), np.int64)
    for b in range(len(rows)):
        most = min(k[b], places.shape[1])
        n = 0
        for c in range(rows.shape[1]):
            if rows[b, c] < 0:
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
