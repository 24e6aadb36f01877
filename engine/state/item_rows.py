"""The rows of items: which item has which, and whether it may be shown and be among the popular ones.

Shapes: R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from engine.state.availability import Availability
from engine.state.catalog import Catalog
from engine.state.catalog_records import CatalogRecords
from engine.state.folded import Rows, distinct, joined
from engine.state.id_map import IdMap
from engine.state.merged import Placed
from engine.state.popularity import TopItems


class ItemRows:
    """Gives rows to items, and takes them back, in all places that know of rows.

    Args:
        slices: by partition; the state adds and removes them.
    """

    def __init__(
        self,
        items: IdMap,
        records: CatalogRecords,
        catalog: Catalog,
        availability: Availability,
        popularity: TopItems,
        slices: Mapping[int, Placed],
    ) -> None:
        self._items = items
        self._records = records
        self._catalog = catalog
        self._availability = availability
        self._popularity = popularity
        self._slices = slices
        self._new: list[Rows] = []  # given in this batch
        self._used: list[Rows] = []  # of items that a slice has begun to use in this batch

    def give(self, ids: Iterable[str]) -> Rows:
        """Rows of items, new ones where they have none."""
        rows = self._items.add(ids)
        given = self._items.take_given()
        if len(given):
            self._popularity.grow(len(self._items))
            self._catalog.grow(len(self._items))
            self._catalog.revive(given)
            self._new.append(given)
        return rows

    def place(self, placed: Placed, local: Rows) -> None:
        """Gives rows to the items `local` [R] of a slice, in rows of the slice, as far as it still knows their ids."""
        ids = [(row, placed.slice.items.id_of(row)) for row in local.tolist()]
        known = [(row, item_id) for row, item_id in ids if item_id is not None]
        if known:
            rows = self.give(item_id for _, item_id in known)
            placed.place(np.array([row for row, _ in known]), rows)
            self._records.name(rows.tolist())
            self._used.append(rows)

    def take_new(self) -> Rows:
        """The rows that were given since this was last asked, each once."""
        new, self._new = self._new, []
        rows = distinct(new)
        self.judge(rows)
        return rows

    def take_used(self) -> Rows:
        """The rows of items that a slice has begun to use since this was last asked."""
        used, self._used = self._used, []
        return joined(used)

    def release(self, rows: Rows) -> None:
        """Takes back those of `rows` [R] whose items neither a slice nor the catalog knows any more."""
        held = np.zeros(len(rows), np.bool_)
        for placed in self._slices.values():
            held |= placed.row_of[rows] > 0
        self._records.unname(rows[~held].tolist())
        for row in rows[~held].tolist():
            if row not in self._catalog and self._items.id_of(row):
                self._items.remove(row)
                self._catalog.remove(row)
        # The others are as items that only events have named, unless the catalog still says more.
        alone = [row for row in rows[held].tolist() if row not in self._catalog]
        self._catalog.revive(np.array(alone, dtype=np.int64))
        self.judge(rows)

    def judge(self, rows: Rows) -> None:
        """Looks again whether the items `rows` [R] may be shown."""
        self._availability.judge(rows)
        self.hide(np.unique(rows))

    def hide(self, rows: Rows) -> None:
        """Keeps the distinct items `rows` [R] among the popular ones only while they may be shown."""
        if len(rows):
            self._popularity.hide(rows, ~self._availability.now(rows))
