"""A list that a scorer without a model made, with what a change of the catalog may change of it.

Shapes: n items of the list, C candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.ranking.moment import Moment
from engine.ranking.page import Page
from engine.ranking.query import Basis, Origin, Query

Longs = NDArray[np.int64]


class Scored(NamedTuple):
    """One list, best first.

    Attributes:
        others: distinct rows that were weighed and are not listed: they can't be as long as their categories and their
            availability stay.
        floor: decayed popularity that another item needs to be listed; -inf where there is room for any.
        popular: how many of the popular items were candidates.
    """

    page: Page
    origin: Origin
    others: Longs
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


class Said(NamedTuple):
    """What a scorer says of one query's candidates.

    Attributes:
        row, source: [C] distinct rows that may be listed, and the bits of their sources.
        score: [C] what it says of each, beside their popularity; 0 where it says nothing.
        crowd: what all of popularity weighs, as a score.
        hidden: rows that would be candidates if they could be listed.
    """

    row: Longs
    source: Longs
    score: NDArray[np.float64]
    crowd: float
    hidden: Longs


def joined(said: Said, popular: Scored, query: Query, origin: Origin, moment: Moment, candidates: int) -> Scored:
    """The best of the candidates and of the popular list, which fills up where candidates are few.

    Args:
        origin: of a list that the scorer has a say in; any other is one of popularity.
        candidates: how many of the popular items were candidates.
    """
    rest = ~np.isin(popular.page.row, said.row)
    rows = np.concatenate([said.row, popular.page.row[rest]])
    own = np.concatenate([said.score, np.zeros(rest.sum())])
    share = np.concatenate([moment.popularity.share(said.row), popular.page.score[rest]])
    source = np.concatenate([said.source, popular.page.source[rest]])
    score = own + said.crowd * share
    best = np.lexsort((rows, -score))[: query.k]
    page = Page(rows[best], score[best], source[best])
    floor = -np.inf
    if len(best) == query.k:  # the decayed popularity with which an item that nothing else is said of comes before it
        popularity = moment.popularity.score
        total = moment.popularity.total / said.crowd
        floor = float(popularity[page.last] if own[best[-1]] == 0 else page.score[-1] * total)
    others = np.setdiff1d(np.concatenate([said.row, said.hidden]), page.row)
    return Scored(page, origin if own[best].any() else Origin.POPULARITY, others, floor, candidates)
