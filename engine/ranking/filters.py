"""What a list may not hold, whatever its score.

Shapes: C candidates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.ranking.query import Query
from engine.state.state import State


def allowed(
    query: Query, rows: NDArray[np.int64], state: State, history: NDArray[np.int64], now_ms: int
) -> NDArray[np.bool_]:
    """[C] True where the item may be in this query's list.

    Args:
        rows: [C] item rows, -1 where there is none.
        history: item rows that the user's history holds; only read where the query leaves them out.
        now_ms: what availability is judged by.
    """
    keep = rows >= 0
    keep &= state.catalog.servable(np.maximum(rows, 0), now_ms)
    if query.exclude_history:
        keep &= ~np.isin(rows, history)
    if query.exclude_item_ids:
        keep &= ~np.isin(rows, state.items.find(query.exclude_item_ids).numpy())
    if query.categories:
        keep &= np.isin(rows, state.catalog.members(query.categories))
    return keep
