"""Which lists a change of the catalog concerns, told for many lists in a few passes over columns.

A list is concerned where making it again may give other items, another order or other titles: it shows a changed item,
it weighed one that has moved too far among its candidates, or it would weigh one now, by way of the index, a category
or the popular items.

Shapes: S lists of one table, R changed items, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.generation import Generation
from engine.ranking.list_bases import BasisTable, ListBases, Place
from engine.ranking.margins import ROUNDING
from engine.state.kernels import compiled
from engine.state.state import State

_MAX_PAIRS = 2**20  # of lists and items that are compared; with more of them, all lists count as concerned
_NOT_WEIGHED, _UNMOVED, _MOVED = 0, 1, 2  # an item for a list

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class CatalogChange:
    """Items whose catalog record has changed, or whose time has come, as they are now.

    Attributes:
        rows: [R] int64, each once.
        available: [R] whether the item may be listed now.
        altered: [R] whether the item has other categories, or may be listed and could not be before, or the other way
            round. Other items of a list depend on that, too: those that are like it, and the one that takes its place
            among the candidates.
        categories: of each of the rows.
        vectors: [R, d] their embeddings; None without a model.
        version: of that model, 0 without one.
        score: [R] decayed popularity.
        scale: of the scores.
        place: [R] how many of the popular items are before each, as many as there may be where it is not among them.
        items: item rows there are.
    """

    rows: NDArray[np.int64]
    available: Flags
    altered: Flags
    categories: Sequence[Sequence[str]]
    vectors: NDArray[np.float32] | None
    version: int
    score: NDArray[np.float64]
    scale: int
    place: NDArray[np.int64]
    items: int

    @classmethod
    def of(cls, rows: NDArray[np.int64], altered: Flags, state: State, generation: Generation | None) -> CatalogChange:
        """Looks up what `rows` are now."""
        popularity, categories = state.popularity, state.catalog.categories
        return cls(
            rows=rows,
            available=state.availability.now(rows),
            altered=altered,
            categories=[categories[row] for row in rows.tolist()],
            vectors=generation.embedder.items.numpy()[rows] if generation else None,
            version=generation.version if generation else 0,
            score=popularity.score[rows],
            scale=state.popularity_scale,
            place=popularity.places(rows),
            items=len(state.items),
        )

    def forbids(self, bases: ListBases) -> list[Place]:
        """The lists that show an item which may not be listed any more."""
        gone = self.rows[~self.available]
        if len(gone) == 0:
            return []
        wanted = np.zeros(self.items, np.bool_)
        wanted[gone] = True
        found = []
        for table in bases.tables():
            shown = np.zeros(len(table), np.bool_)
            _show(table.rows, table.low, wanted, shown)
            found += _places(table, shown)
        return found

    def concerns(self, bases: ListBases) -> list[Place]:
        """The lists that may be others if they are made again."""
        found = []
        for table in bases.tables():
            if len(self.rows) == 0:
                continue
            if len(table) * len(self.rows) > _MAX_PAIRS:
                found += _places(table, np.ones(len(table), np.bool_))
            else:
                found += _places(table, self._concerned(table))
        return found

    def _concerned(self, table: BasisTable) -> Flags:
        """[S] whether a list may be another; whatever of free slots."""
        size = len(table)
        cosine = self._cosines(table)  # [S, R]
        number = np.full(self.items, -1, np.int32)
        number[self.rows] = np.arange(len(self.rows))
        weighed = np.zeros((size, len(self.rows)), np.int8)
        _weigh(table.rows, table.low, table.high, cosine, number, self.altered, weighed)
        within = self._within(table)
        floor = table.floor[:size].astype(np.float32) - np.float32(ROUNDING)
        found = np.zeros(size, np.bool_)
        _concern(weighed, cosine, floor, table.popular, within, self.available, self.place, found)
        by_popularity = np.flatnonzero(~table.modelled[:size])
        if len(by_popularity):
            found[by_popularity] |= self._popularity_would_list(table, by_popularity, within[by_popularity])
        return found

    def _cosines(self, table: BasisTable) -> NDArray[np.float32]:
        """[S, R] of sessions and items; nan where it is of no use: no model, or one of the items' is another."""
        size = len(table)
        if self.vectors is None or table.vector.shape[1] != self.vectors.shape[1]:
            return np.full((size, len(self.rows)), np.nan, np.float32)
        cosine: NDArray[np.float32] = table.vector[:size] @ self.vectors.T
        # A list of another model is to be made again anyway.
        cosine[~table.modelled[:size] | (table.version[:size] != self.version)] = np.nan
        return cosine

    def _popularity_would_list(self, table: BasisTable, slots: NDArray[np.int64], within: Flags) -> Flags:
        """Of lists in the order of popularity: whether an item that may be listed goes before their last.

        Args:
            within: [slots, R] whether an item is in one of the categories that a query asks for.
        """
        floor = np.ldexp(table.floor[slots], np.clip(table.scale[slots] - self.scale, -2000, 2000))
        tie = self.score == floor[:, None]
        # A list that is short, whose floor is -inf, takes any other item.
        better = (self.score > floor[:, None]) | (tie & (self.rows < table.last[slots, None]))  # [slots, R]
        found: Flags = (better & within & self.available).any(axis=1)
        return found

    def _within(self, table: BasisTable) -> Flags:
        """[S, R] whether an item is in one of the categories that a query asks for; all are where it asks for none."""
        within = np.ones((len(table), len(self.rows)), np.bool_)
        if not table.filtered:
            return within
        named: dict[str, Flags] = {}
        for at, categories in enumerate(self.categories):
            for category in categories:
                named.setdefault(category, np.zeros(len(self.rows), np.bool_))[at] = True
        for slot in range(len(table)):
            asked = _categories(table, slot)
            if asked:
                masks = [named[category] for category in asked if category in named]
                within[slot] = np.logical_or.reduce(masks) if masks else False
        return within


def _categories(table: BasisTable, slot: int) -> tuple[str, ...]:
    query = table.query[slot]
    return query.categories if query is not None else ()


def _places(table: BasisTable, found: Flags) -> list[Place]:
    return [Place(table.width, slot) for slot in np.flatnonzero(found).tolist() if table.query[slot] is not None]


@compiled("void(i4[:,::1], f4[:,::1], b1[::1], b1[::1])")
def _show(rows: NDArray[np.int32], low: NDArray[np.float32], wanted: Flags, shown: Flags) -> None:
    """Fills `shown` [S] with whether a list holds one of the `wanted` items."""
    for s in range(len(shown)):
        for c in range(rows.shape[1]):
            if rows[s, c] < 0:
                break
            if wanted[rows[s, c]] and np.isnan(low[s, c]):
                shown[s] = True
                break


@compiled("void(i4[:,::1], f4[:,::1], f4[:,::1], f4[:,::1], i4[::1], b1[::1], i1[:,::1])")
def _weigh(
    rows: NDArray[np.int32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    cosine: NDArray[np.float32],
    number: NDArray[np.int32],
    altered: Flags,
    weighed: NDArray[np.int8],
) -> None:
    """Fills `weighed` [S, R] with what each item is for each list, as far as the list weighed it.

    Args:
        cosine: [S, R] where the items are now; nan lies within no margins but those that hold everything.
        number: by item, which of the R it is, -1: none.
        altered: [R] items that count as moved.
    """
    for s in range(len(weighed)):
        for c in range(rows.shape[1]):
            if rows[s, c] < 0:
                break
            r = number[rows[s, c]]
            if r >= 0:
                anywhere = low[s, c] == -np.inf and high[s, c] == np.inf
                between = low[s, c] < cosine[s, r] and cosine[s, r] < high[s, c]
                within = not altered[r] and (anywhere or between)
                weighed[s, r] = _UNMOVED if within else _MOVED


@compiled("void(i1[:,::1], f4[:,::1], f4[::1], i8[::1], b1[:,::1], b1[::1], i8[::1], b1[::1])")
def _concern(
    weighed: NDArray[np.int8],
    cosine: NDArray[np.float32],
    floor: NDArray[np.float32],
    popular: NDArray[np.int64],
    within: Flags,
    available: Flags,
    place: NDArray[np.int64],
    found: Flags,
) -> None:
    """Fills `found` [S] with whether a list weighed an item that has moved, or would weigh another one now.

    Args:
        weighed: [S, R] from `_weigh`.
        floor, popular: [S or more] the cosine that an item needs, and how many of the popular items are weighed.
        within: [S, R] whether a list may have the item for its categories.
        available, place: [R] of the items.
    """
    for s in range(len(found)):
        for r in range(weighed.shape[1]):
            if weighed[s, r] == _NOT_WEIGHED:
                near = cosine[s, r] >= floor[s] and within[s, r] and available[r]
                found[s] = near or popular[s] > place[r]
            else:
                found[s] = weighed[s, r] == _MOVED
            if found[s]:
                break
