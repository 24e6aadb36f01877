"""A list that a scorer without a model made, with what a change of the catalog may change of it.

Shapes: n items of the list, C further ones that were weighed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.ranking.page import Page
from engine.ranking.query import Basis, Origin, Query


class Scored(NamedTuple):
    """One list, best first.

    Attributes:
        others: [C] distinct rows that were weighed and are not listed: they can't be as long as their categories and
            their availability stay.
        floor: decayed popularity that another item needs to be listed; -inf where there is room for any.
        popular: how many of the popular items were candidates.
    """

    page: Page
    origin: Origin
    others: NDArray[np.int64]
    floor: float
    popular: int

    def basis(self, query: Query, scale: int) -> Basis:
        """What the list was made from.

        Args:
            scale: of popularity's scores.
        """
        low = np.full(len(self.page.row) + len(self.others), -np.inf, np.float32)
        low[: len(self.page.row)] = np.nan
        high = np.where(np.isnan(low), -np.inf, np.inf).astype(np.float32)
        rows = np.concatenate([self.page.row, self.others]).astype(np.int32)
        return Basis(query, 0, rows, low, high, None, self.floor, scale, self.page.last, self.popular)
