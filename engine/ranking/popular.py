"""Lists of what is popular, the same for everybody but for the filters.

Shapes: n items of a list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.model.candidates import BACKFILL_BIT, POPULAR_BIT
from engine.ranking.backfill import backfill
from engine.ranking.filters import allowed
from engine.ranking.page import page_of
from engine.ranking.query import Basis, Origin, Query, Scored
from engine.state.popularity import most_popular
from engine.state.state import State


def by_popularity(query: Query, user: int, state: State, now_ms: int) -> Scored:
    """The most popular of all items that may be shown to this query; those without any event come last.

    Args:
        user: its row, -1 where it is unknown.
    """
    history = np.zeros((1, 0), dtype=np.int64)
    if query.exclude_history and user >= 0:
        history = state.histories([user]).row.numpy()

    def listed(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows[allowed([query], rows[None], state, history, now_ms)[0]]

    popularity, more = state.popularity, np.zeros(0, np.int64)
    if query.categories:
        rows = listed(state.catalog.members(query.categories))
    else:
        rows = listed(popularity.top(query.k + len(query.exclude_item_ids) + history.shape[1]))
        if len(rows) < query.k and not (popularity.whole and state.availability.settled(now_ms)):
            top = popularity.top()
            rows = listed(top)
            more = backfill(query, state, history[0], now_ms, top, max(0, query.k - len(rows)))
    best = most_popular(np.concatenate([rows, more]), popularity.score, query.k)
    bits = np.where(np.isin(best, more), BACKFILL_BIT, POPULAR_BIT)
    page = page_of(best, popularity.share(best), bits, state)
    full = len(best) == query.k
    floor = float(popularity.score[best[-1]]) if full and len(best) else -np.inf
    low, high = np.full(len(best), np.nan, np.float32), np.full(len(best), -np.inf, np.float32)
    last = int(best[-1]) if len(best) else -1
    basis = Basis(query, 0, best.astype(np.int32), low, high, None, floor, state.popularity_scale, last, 0)
    return Scored(page.items, basis, Origin.POPULARITY)
