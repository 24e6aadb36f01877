"""Which lists a change of the catalog concerns, told for many lists in a few passes over columns.

A list is concerned where making it again may give other items, another order or other titles: it shows a changed item,
it weighed one among its candidates, or it would weigh one now, by way of the index, a category or the popular items.

Shapes: S lists, R changed items, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.generation import Generation
from engine.ranking.query import Basis
from engine.state.state import State

_ROUNDING = 1e-5  # by which a score that is computed here may differ from the index's
_MAX_PAIRS = 2**20  # of lists and items that are compared; with more of them, all lists count as concerned

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class CatalogChange:
    """Items whose catalog record has changed, as they are now.

    Attributes:
        rows: [R] int64, each once.
        deleted: [R] whether the newest record deletes the item.
        servable: [R] whether the item may be listed now.
        categories: of each of the rows.
        vectors: [R, d] their embeddings; None without a model.
        version: of that model, 0 without one.
        score: [R] decayed popularity.
        scale: of the scores.
        place: [R] how many of the popular items are before each, `popular` where it is not among them.
        popular: popular items at most.
        items: item rows there are.
    """

    rows: NDArray[np.int64]
    deleted: Flags
    servable: Flags
    categories: Sequence[Sequence[str]]
    vectors: NDArray[np.float32] | None
    version: int
    score: NDArray[np.float64]
    scale: int
    place: NDArray[np.int64]
    popular: int
    items: int

    @classmethod
    def of(cls, rows: NDArray[np.int64], state: State, generation: Generation | None, now_ms: int) -> CatalogChange:
        """The change of `rows` [R], as the state and the generation have them at the call."""
        catalog, popularity = state.catalog, state.popularity
        return cls(
            rows=rows,
            deleted=catalog.deleted(rows),
            servable=catalog.servable(rows, now_ms),
            categories=[catalog.categories[row] for row in rows.tolist()],
            vectors=generation.embedder.items.numpy()[rows] if generation else None,
            version=generation.version if generation else 0,
            score=popularity.score[rows],
            scale=state.popularity_scale,
            place=popularity.places(rows),
            popular=popularity.limit,
            items=len(state.items),
        )

    def forbids(self, bases: Sequence[Basis]) -> Flags:
        """[S] whether the lists made from `bases` show an item that may not be listed any more."""
        return self._named([basis.listed for basis in bases], self.rows[~self.servable])

    def concerns(self, bases: Sequence[Basis]) -> Flags:
        """[S] whether the lists made from `bases` may be others if they are made again."""
        if len(bases) == 0 or len(self.rows) == 0:
            return np.zeros(len(bases), np.bool_)
        if len(bases) * len(self.rows) > _MAX_PAIRS:
            return np.ones(len(bases), np.bool_)
        found = self._named([basis.listed for basis in bases], self.rows)
        found |= self._named([basis.candidates for basis in bases], self.rows)
        modelled = np.array([basis.vector is not None for basis in bases], np.bool_)
        for part, comes_in in ((modelled, self._model_would_weigh), (~modelled, self._popularity_would_list)):
            ask = np.flatnonzero(part & ~found)
            if len(ask):
                found[ask] = comes_in([bases[at] for at in ask.tolist()])
        return found

    def _named(self, lists: Sequence[NDArray[np.int32]], rows: NDArray[np.int64]) -> Flags:
        """[S] whether a list of rows has any of `rows`."""
        if len(rows) == 0 or len(lists) == 0:
            return np.zeros(len(lists), np.bool_)
        wanted = np.zeros(self.items, np.bool_)
        wanted[rows] = True
        end = np.cumsum([len(one) for one in lists])
        count = np.concatenate([[0], np.cumsum(wanted[np.concatenate(lists)], dtype=np.int32)])
        return count[end] > count[np.concatenate([[0], end[:-1]])]

    def _model_would_weigh(self, bases: Sequence[Basis]) -> Flags:
        """[S] of lists in the model's order: whether an item comes in through the index or is popular enough."""
        popular = np.array([basis.popular for basis in bases]) > self.place.min()
        same = np.array([basis.version == self.version for basis in bases])  # others are to be made again anyway
        if self.vectors is None or not same.any():
            return popular
        found = popular
        asked = [basis for basis, ours in zip(bases, same, strict=True) if ours]
        query = np.stack([basis.vector for basis in asked if basis.vector is not None])
        floor = np.array([basis.floor for basis in asked], np.float32)
        near = query @ self.vectors.T >= floor[:, None] - np.float32(_ROUNDING)  # [S, R]
        found[same] |= (near & self._within(asked) & ~self.deleted).any(axis=1)
        return found

    def _popularity_would_list(self, bases: Sequence[Basis]) -> Flags:
        """[S] of lists in the order of popularity: whether an item that may be listed goes before their last."""
        scale = np.array([basis.scale for basis in bases])
        floor = np.ldexp(np.array([basis.floor for basis in bases]), np.clip(scale - self.scale, -2000, 2000))
        last = np.array([basis.listed[-1] if len(basis.listed) else -1 for basis in bases])
        tie = self.score == floor[:, None]
        better = (self.score > floor[:, None]) | (tie & (self.rows < last[:, None]))  # [S, R]
        filtered = np.array([bool(basis.query.categories) for basis in bases])
        eligible = self._within(bases) & (filtered[:, None] | (self.place < self.popular)) & self.servable
        # A list that is short for want of popular items grows as soon as another takes a place among them.
        short = np.isneginf(floor) & ~filtered
        return (better & eligible).any(axis=1) | short

    def _within(self, bases: Sequence[Basis]) -> Flags:
        """[S, R] whether an item is in one of the categories that a query asks for; all are where it asks for none."""
        named: dict[str, Flags] = {}
        for at, categories in enumerate(self.categories):
            for category in categories:
                named.setdefault(category, np.zeros(len(self.rows), np.bool_))[at] = True
        known: dict[tuple[str, ...], Flags] = {(): np.ones(len(self.rows), np.bool_)}
        for basis in bases:
            asked = basis.query.categories
            if asked not in known:
                masks = [named[category] for category in asked if category in named]
                known[asked] = np.logical_or.reduce(masks) if masks else np.zeros(len(self.rows), np.bool_)
        return np.stack([known[basis.query.categories] for basis in bases])
