"""What a list may not hold, whatever its score.

Shapes: B queries, C candidates of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.ranking.query import Query
from engine.state.state import State


def allowed(
    queries: Sequence[Query], rows: NDArray[np.int64], state: State, histories: NDArray[np.int64], now_ms: int
) -> NDArray[np.bool_]:
    """[B, C] True where the item may be in the query's list.

    Args:
        rows: [B, C] item rows, -1 where there is none.
        histories: [B, K] item rows that each user's history holds; only read where a query leaves them out.
        now_ms: what availability is judged by.
    """
    keep: NDArray[np.bool_] = (rows >= 0) & state.availability.at(np.maximum(rows, 0), now_ms)
    for b, query in enumerate(queries):
        if query.exclude_history:
            keep[b] &= ~np.isin(rows[b], histories[b])
        if query.exclude_item_ids:
            keep[b] &= ~np.isin(rows[b], state.items.find(query.exclude_item_ids).numpy())
        if query.categories:
            keep[b] &= np.isin(rows[b], state.catalog.members(query.categories))
    return keep
