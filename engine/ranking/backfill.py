"""Items that fill up a list which has fewer than k otherwise: all others that may be shown to this query.

All that is cut to the best few leaves out beforehand what may not be shown. So few lists are short, and fewer of these
can be filled: where a query leaves out hundreds of popular items, or where the time of many items has come at this very
moment and the mask of available items does not say so yet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.ranking.asked import Asked
from engine.ranking.moment import Moment
from engine.state.popularity import most_popular

Longs = NDArray[np.int64]


def backfill(asked: Asked, b: int, moment: Moment, held: Longs, n: int) -> Longs:
    """Up to `n` rows that may be in one query's list and are not `held`: by popularity, those without any event last.

    Args:
        held: rows that have been looked at; -1 is none.
    """
    if n == 0:
        return np.zeros(0, np.int64)
    others = np.ones(moment.items, np.bool_)
    others[held[held >= 0]] = False
    rows = np.flatnonzero(others)
    rows = rows[moment.may(rows)]
    return most_popular(rows[asked.lets(b, rows)], moment.popularity.score, n)
