"""The bases of the lists of all streams, by columns: one pass compares a change of the catalog with all of them.

Lists weigh a few hundred candidates, and some a few thousand. So each has a row in the table of its width, and wide
lists do not widen others.

Shapes: S lists of one table, C candidates at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.index.exact import grown
from engine.ranking.query import Basis, Query

_NARROWEST = 64

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Place(NamedTuple):
    """Where a list's basis is kept."""

    width: int
    slot: int


class BasisTable:
    """The bases of lists with up to `width` candidates; see `Basis` for the columns.

    Attributes:
        query: of each slot; None where it is free.
        filtered: queries that ask for categories.
        rows: [S, C], -1 behind the last and in free slots.
        low, high: [S, C].
        vector: [S, d]; zeros where `modelled` is False.
        modelled: [S] whether the model ordered the list.
        version, floor, scale, last, popular: [S].
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.query: list[Query | None] = []
        self.filtered = 0
        self.rows = np.full((0, width), -1, np.int32)
        self.low, self.high = np.zeros((0, width), np.float32), np.zeros((0, width), np.float32)
        self.vector = np.zeros((0, 0), np.float32)
        self.modelled = np.zeros(0, np.bool_)
        self.floor = np.zeros(0)
        self.version, self.scale, self.last, self.popular = (np.zeros(0, np.int64) for _ in range(4))
        self._free: list[int] = []

    def __len__(self) -> int:
        """S: slots, free ones included."""
        return len(self.query)

    def put(self, basis: Basis, slot: int | None) -> int:
        """Keeps a basis in this slot or, without one, in a free one, which is returned."""
        if slot is None:
            slot = self._free.pop() if self._free else self._add_slot()
        self._ask(slot, basis.query)
        n = len(basis.rows)
        self.rows[slot, :n], self.rows[slot, n:] = basis.rows, -1
        self.low[slot, :n], self.high[slot, :n] = basis.low, basis.high
        self.modelled[slot] = basis.vector is not None
        if basis.vector is not None:
            if self.vector.shape[1] != len(basis.vector):  # Lists of a model of another width are made again anyway.
                self.vector = np.zeros((len(self.rows), len(basis.vector)), np.float32)
            self.vector[slot] = basis.vector
        self.version[slot], self.floor[slot], self.scale[slot] = basis.version, basis.floor, basis.scale
        self.last[slot], self.popular[slot] = basis.last, basis.popular
        return slot

    def drop(self, slot: int) -> None:
        self._ask(slot, None)
        self.rows[slot] = -1
        self._free.append(slot)

    def _ask(self, slot: int, query: Query | None) -> None:
        before, self.query[slot] = self.query[slot], query
        self.filtered += bool(query and query.categories) - bool(before and before.categories)

    def _add_slot(self) -> int:
        self.query.append(None)
        size = len(self.query)
        if size > len(self.rows):
            self.rows = grown(self.rows, size, fill=-1)
            self.low, self.high, self.vector = grown(self.low, size), grown(self.high, size), grown(self.vector, size)
            self.modelled, self.floor, self.version = (
                grown(self.modelled, size), grown(self.floor, size), grown(self.version, size)
            )  # fmt: skip
            self.scale, self.last, self.popular = (
                grown(self.scale, size), grown(self.last, size), grown(self.popular, size)
            )  # fmt: skip
        return size - 1


class ListBases:
    """The bases of all lists, for one thread."""

    def __init__(self) -> None:
        self._tables: dict[int, BasisTable] = {}

    def __len__(self) -> int:
        return sum(1 for _ in self.places())

    def put(self, basis: Basis, place: Place | None = None) -> Place:
        """Keeps a basis, in the place of another where one is given; returns its place."""
        width = _NARROWEST
        while width < len(basis.rows):
            width *= 2
        if place is not None and place.width != width:
            self.drop(place)
            place = None
        table = self._tables[width] if width in self._tables else self._tables.setdefault(width, BasisTable(width))
        return Place(width, table.put(basis, None if place is None else place.slot))

    def drop(self, place: Place) -> None:
        """Gives the place free."""
        self._tables[place.width].drop(place.slot)

    def tables(self) -> Iterator[BasisTable]:
        yield from self._tables.values()

    def places(self) -> Iterator[tuple[Place, Query]]:
        """Of all bases, with what was asked."""
        for table in self.tables():
            for slot, query in enumerate(table.query):
                if query is not None:
                    yield Place(table.width, slot), query
