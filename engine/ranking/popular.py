"""Lists of what is popular, the same for everybody but for the filters.

Shapes: n items of a list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.features.candidates import BACKFILL_BIT, POPULAR_BIT
from engine.ranking.asked import Asked
from engine.ranking.backfill import backfill
from engine.ranking.moment import Moment
from engine.ranking.page import Page
from engine.ranking.query import Origin
from engine.ranking.scored import Scored
from engine.state.popularity import most_popular

Longs = NDArray[np.int64]

_NO_ROWS = np.zeros(0, np.int64)


def by_popularity(asked: Asked, moment: Moment, config: RankingConfig) -> list[Scored]:
    """The most popular of all items that may be shown to each query; those without any event come last."""
    return [_of(asked, b, moment) for b in range(len(asked))]


def _of(asked: Asked, b: int, moment: Moment) -> Scored:
    query, filter_ = asked.queries[b], asked.filters[b]
    popularity, more = moment.popularity, _NO_ROWS

    def listed(rows: Longs) -> Longs:
        rows = rows[moment.may(rows)]
        return rows[asked.lets(b, rows)]

    if filter_.members is not None:
        rows = listed(filter_.members)
    else:
        history = asked.history.row.shape[1] if query.exclude_history and asked.users[b] >= 0 else 0
        rows = listed(popularity.top(query.k + len(query.exclude_item_ids) + history))
        if len(rows) < query.k and not (popularity.whole and moment.settled):
            top = popularity.top()
            rows = listed(top)
            more = backfill(asked, b, moment, top, max(0, query.k - len(rows)))
    best = most_popular(np.concatenate([rows, more]), popularity.score, query.k)
    source = np.where(np.isin(best, more), BACKFILL_BIT, POPULAR_BIT)
    floor = float(popularity.score[best[-1]]) if len(best) == query.k else -np.inf
    return Scored(Page(best, popularity.share(best), source), Origin.POPULARITY, _NO_ROWS, floor, 0)
