"""What is known of the items themselves: titles, categories, content vectors, availability.

Shapes: N items, F content features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from engine.events.batch import CatalogItem
from engine.state.catalog_records import CatalogRecords
from engine.state.content import ContentEncoder
from engine.state.table import Table, TableCopy

ALWAYS = np.iinfo(np.int64)
NO_GROUP = -1


def group_of(categories: Sequence[str]) -> int:
    """A number that items of the same categories, in the same order, have in common; NO_GROUP where there are none."""
    if not categories:
        return NO_GROUP
    return xxhash.xxh3_64_intdigest("\x00".join(categories).encode()) >> 1


class Catalog:
    """Columns by item row. An item that only events have named has no title and no content.

    Args:
        rows: item rows there may be.
        records: where it keeps them, those that delete an item included.

    Attributes:
        group: [N or more] int64 what stands for an item's categories, see `group_of`.
    """

    def __init__(self, encoder: ContentEncoder, features_dim: int, rows: int, records: CatalogRecords) -> None:
        self._encoder = encoder
        self._features_dim = features_dim
        self.title: list[str] = []
        self.categories: list[tuple[str, ...]] = []
        self._members: dict[str, set[int]] = {}  # category -> rows
        self._rising: dict[str, NDArray[np.int64]] = {}  # the same in order, of those asked for since they changed
        self._records = records
        self._content = Table(rows, (encoder.dim + features_dim,), dtype=torch.float32)  # [N, F]
        self._from_ms = np.zeros(0, dtype=np.int64)
        self._until_ms = np.zeros(0, dtype=np.int64)
        self.group = np.zeros(0, dtype=np.int64)
        self._deleted = np.zeros(0, dtype=bool)
        self._described = np.zeros(0, dtype=bool)  # whether anything but the defaults is known of a row

    def __len__(self) -> int:
        """Records held."""
        return len(self._records)

    def __contains__(self, row: int) -> bool:
        """Whether there is a record of the item."""
        return row in self._records

    @property
    def content_dim(self) -> int:
        """F: encoded content and the given features."""
        return self._encoder.dim + self._features_dim

    def grow(self, items: int) -> None:
        """Makes room for rows 0..items-1, available always."""
        missing = items - len(self.title)
        if missing <= 0:
            return
        self.title.extend([""] * missing)
        self.categories.extend([()] * missing)
        if items > len(self._deleted):
            more = max(items, 2 * len(self._deleted), 1024) - len(self._deleted)
            self._from_ms = np.concatenate([self._from_ms, np.full(more, ALWAYS.min)])
            self._until_ms = np.concatenate([self._until_ms, np.full(more, ALWAYS.max)])
            self.group = np.concatenate([self.group, np.full(more, NO_GROUP)])
            self._deleted = np.concatenate([self._deleted, np.zeros(more, dtype=bool)])
            self._described = np.concatenate([self._described, np.zeros(more, dtype=bool)])

    def fold(
        self, rows: Sequence[int], items: Sequence[CatalogItem], content: Tensor | None = None, *, back: bool = False
    ) -> list[int]:
        """Replaces what is known of `rows` by `items`, in log order: the newest record wins whole.

        Args:
            content: [len(rows), F] that a snapshot has kept of the items, so that they need not be encoded again.
            back: whether these are the newest records of items that events name, which were dropped before.

        Returns:
            Rows whose record had to make room; they count as deleted.
        """
        dropped = []
        put = self._records.put_back if back else self._records.put
        for at, (row, item) in enumerate(zip(rows, items, strict=True)):
            self._deleted[row] = item.deleted
            if not item.deleted:
                self._describe(row, item, None if content is None else content[at])
                self._described[row] = True
            for lost in put(row, _bare(item) if item.deleted else item):
                self.remove(lost)
                dropped.append(lost)
        return dropped

    def remove(self, row: int) -> None:
        """Forgets what is known of a row; it counts as deleted until it is given to another item."""
        self._records.remove(row)
        if self._described[row]:
            self._describe(row, CatalogItem(""))
            self._described[row] = False
        self._deleted[row] = True

    def revive(self, rows: NDArray[np.int64]) -> None:
        """Rows just given to items: these are as items that only events have named."""
        self._deleted[rows] = False

    def rows(self) -> list[int]:
        """Rows with a record, those first that have it only because events name them."""
        return self._records.rows()

    def records(self) -> list[CatalogItem]:
        """The newest record of each of `rows`; of a deleted item only that."""
        return self._records.records()

    def record(self, row: int) -> CatalogItem | None:
        """The newest record of a row, if there is one."""
        return self._records.get(row)

    def deleted(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[len(rows)] True where the newest record deletes the item."""
        return self._deleted[rows]

    def servable(self, rows: NDArray[np.int64], now_ms: int) -> NDArray[np.bool_]:
        """[len(rows)] True where an item is not deleted, and `now_ms` is within its time."""
        return ~self._deleted[rows] & (self._from_ms[rows] <= now_ms) & (now_ms < self._until_ms[rows])

    def windows(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[len(rows)] times in ms from which, and until which, an item may be recommended."""
        return self._from_ms[rows], self._until_ms[rows]

    def times(self) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """The columns of `Shown` that are of items: views, valid until the next record."""
        return self._deleted, self._from_ms, self._until_ms, self._described

    def named(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[len(rows)] True where the catalog has a record of an item, and the newest does not delete it."""
        return self._described[rows] & ~self._deleted[rows]

    def timed(self) -> NDArray[np.int64]:
        """Rows of the items that are bounded in time on either side."""
        return np.flatnonzero((self._from_ms > ALWAYS.min) | (self._until_ms < ALWAYS.max))

    def fingerprint(self, row: int) -> int:
        """A hash of everything that the catalog says of an item and that a list may depend on; never 0."""
        mixed = xxhash.xxh3_64()
        mixed.update("\x00".join((self.title[row], *self.categories[row])).encode())
        mixed.update(self._content.array[row].tobytes())
        mixed.update(np.array([self._from_ms[row], self._until_ms[row], self._deleted[row]]).tobytes())
        return mixed.intdigest() >> 1 | 1

    def members(self, categories: Iterable[str]) -> NDArray[np.int64]:
        """Rows of the items in at least one of `categories`, ascending; deleted ones may be among them.

        The array is the catalog's own: it is not to be changed.
        """
        known = [self._members_of(category) for category in dict.fromkeys(categories) if category in self._members]
        if len(known) == 1:
            return known[0]
        rows = np.concatenate([np.zeros(0, np.int64), *known])
        rows.sort(kind="stable")  # which is quick where long parts are in order
        return rows[np.diff(rows, prepend=-1) > 0]

    def _members_of(self, category: str) -> NDArray[np.int64]:
        """`members` of one category that there is. A set of 150,000 rows takes 30 ms to be put in order."""
        rows = self._rising.get(category)
        if rows is None:
            rows = np.fromiter(self._members[category], np.int64, len(self._members[category]))
            rows.sort()
            self._rising[category] = rows
        return rows

    def contents(self) -> Tensor:
        """[N, F] content of every item."""
        return self._content.data[: len(self.title)]

    def copy_contents(self) -> TableCopy | None:
        """Begins a copy of `contents`; None where they are as soon made anew."""
        return self._content.copy(len(self.title)) if self._encoder.saved else None

    def _describe(self, row: int, item: CatalogItem, content: Tensor | None = None) -> None:
        self._put_content(row, item, content)
        self.title[row] = item.title
        before, after = set(self.categories[row]), set(item.categories)  # a record may name one twice
        for category in before - after:
            self._rising.pop(category, None)
            self._members[category].discard(row)
            if not self._members[category]:
                del self._members[category]
        for category in after - before:
            self._rising.pop(category, None)
            self._members.setdefault(category, set()).add(row)
        self.categories[row] = item.categories
        self.group[row] = group_of(item.categories)
        self._from_ms[row] = ALWAYS.min if item.available_from_ms is None else item.available_from_ms
        self._until_ms[row] = ALWAYS.max if item.available_until_ms is None else item.available_until_ms

    def _put_content(self, row: int, item: CatalogItem, content: Tensor | None) -> None:
        """Encoded text, then the given features; or all of it as it was kept."""
        if not self._content.loose:
            self._content.note(torch.tensor([row]))
        vector, width = self._content.array[row], self._encoder.dim
        if content is not None:
            vector[:] = content.numpy()
            return
        if (item.title, item.categories) != (self.title[row], self.categories[row]):  # else a new price, say
            vector[:width] = self._encoder.encode(item)
        vector[width:] = item.features or 0.0


def _bare(item: CatalogItem) -> CatalogItem:
    """Nothing but that an item is deleted."""
    return CatalogItem(item.item_id, deleted=True, offset=item.offset, partition=item.partition)
