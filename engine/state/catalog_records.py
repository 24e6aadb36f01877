"""The newest catalog records: of the items updated last, and of all other items that events name.

A producer that invents items pushes out what was updated long ago and is used by nobody, and not the titles of the
items that people use. Which records are kept follows from the log alone. The records updated last are the same however
far the events have been read, and of the others those are kept whose items events name. One kind is missing for a
while: the record of an item that events name only after it was dropped. `wanted` counts these items, and
`engine/catalog_recall.py` reads their records from the topic again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import chain
from sys import getsizeof
from typing import Generic, TypeVar

from engine.events.batch import CatalogItem

K = TypeVar("K", int, str)
Update = tuple[int, int, int]  # Offset and partition of the record, and how many updates came here before it.

_RECORD_BYTES = 700  # of a record without texts, and of its places in dictionaries


class CatalogRecords:
    """Records by item row.

    The offset of a record, and its partition where offsets are equal, tell how long ago its item was updated: both are
    the same in whatever order the partitions are read.

    Args:
        max_records: records of the items updated last that it holds; those of items that events name come on top.
        max_bytes: memory that the records may take, half of it for each of the two kinds, of which at least the newest
            record is kept.

    Attributes:
        evicted: records that were dropped because others came.
        dropped: whether there ever were more than the records updated last, also before a restart: only then may an
            item without a record have had one.
    """

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._updated_last = RecordPool[int](max_bytes // 2, max_records)
        self._used = RecordPool[int](
            max_bytes // 2
        )  # of items that events name and that are not among those updated last
        self._updates = 0
        self._named: set[int] = set()
        self._wanted: set[int] = set()
        self._sought: set[int] = set()
        self._declined: set[int] = set()  # items that events name, and whose records found no room
        self.evicted = 0
        self.dropped = False

    def __len__(self) -> int:
        return len(self._updated_last.records) + len(self._used.records)

    def __contains__(self, row: int) -> bool:
        return row in self._updated_last.records or row in self._used.records

    @property
    def bytes(self) -> int:
        """About the memory that the records take."""
        return self._updated_last.bytes + self._used.bytes

    @property
    def used(self) -> int:
        """Records that are held only because events name their items."""
        return len(self._used.records)

    @property
    def wanted(self) -> int:
        """Items that events name and whose records may have been dropped before that."""
        return len(self._wanted)

    def rows(self) -> list[int]:
        """Rows with a record, the `used` ones first."""
        return [*self._used.records, *self._updated_last.records]

    def records(self) -> list[CatalogItem]:
        """The records of `rows`."""
        return [*self._used.records.values(), *self._updated_last.records.values()]

    def get(self, row: int) -> CatalogItem | None:
        """The record of a row, if there is one."""
        return self._updated_last.records.get(row) or self._used.records.get(row)

    def put(self, row: int, record: CatalogItem) -> list[int]:
        """Keeps a record that is newer than all others of its item.

        Returns:
            The rows, perhaps this one, that have lost theirs to make room.
        """
        self.remove(row)
        self._forget_search(row)
        lost = []
        for oldest, dropped in self._updated_last.put(row, record, self._next_update(record)):
            self.dropped = True
            if oldest in self._named:
                lost += self._keep_used(oldest, dropped)
            else:
                lost.append(oldest)
        return self._count(lost)

    def put_back(self, row: int, record: CatalogItem) -> list[int]:
        """Keeps the newest record of an item that events name, which was dropped before; returns as `put`."""
        self._forget_search(row)
        return self._count(self._keep_used(row, record))

    def remove(self, row: int) -> None:
        """Drops the record of a row, if there is one."""
        self._updated_last.pop(row)
        if self._used.pop(row) is not None:
            self._want_declined()

    def name(self, rows: Iterable[int]) -> None:
        """Notes that events name the items of `rows`."""
        for row in rows:
            if row not in self._named:
                self._named.add(row)
                if self.dropped and row not in self:
                    self._wanted.add(row)

    def unname(self, rows: Iterable[int]) -> None:
        """Notes that no event names the items of `rows` any more; the records of some are dropped thereby."""
        for row in rows:
            self._named.discard(row)
            self._forget_search(row)
            if row in self._used.records:
                self.remove(row)
                self._count([row])

    # -- what was dropped too early -----------------------------------------------------------------------------------

    def assume_dropped(self) -> None:
        """Records may have been dropped before a restart: those of any item that has none."""
        self.dropped = True
        self._wanted |= {row for row in self._named if row not in self}

    def seek(self) -> list[int]:
        """The rows of the `wanted` items, whose newest records are now looked for, up to where the topic was folded."""
        self._sought, self._wanted = self._wanted, set()
        return list(self._sought)

    def sought(self, row: int) -> bool:
        """Whether the record of a row is looked for still, since neither a newer one came nor did events forget it."""
        return row in self._sought

    def end_search(self, *, found: bool) -> None:
        """The search is over. An item that is still sought has no record, or is wanted again where nothing was read."""
        if not found:
            self._wanted |= self._sought
        self._sought = set()

    def _forget_search(self, row: int) -> None:
        for rows in (self._wanted, self._sought, self._declined):
            rows.discard(row)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _next_update(self, record: CatalogItem) -> Update:
        self._updates += 1
        return record.offset, record.partition, self._updates

    def _keep_used(self, row: int, record: CatalogItem) -> list[int]:
        declined = [oldest for oldest, _ in self._used.put(row, record, self._next_update(record))]
        self._declined.update(declined)
        return declined

    def _want_declined(self) -> None:
        """There is room again."""
        self._wanted |= self._declined
        self._declined.clear()

    def _count(self, lost: list[int]) -> list[int]:
        self.evicted += len(lost)
        return lost


class RecordPool(Generic[K]):
    """Records within limits, by row or by item id; the longest not updated make room."""

    def __init__(self, max_bytes: int, max_records: int | None = None) -> None:
        self._max_bytes, self._max_records = max_bytes, max_records
        self.records: dict[K, CatalogItem] = {}
        self._updated: dict[K, Update] = {}
        self._oldest: list[tuple[Update, K]] = []  # A heap; stale entries are passed over.
        self.bytes = 0

    def put(self, row: K, record: CatalogItem, update: Update) -> list[tuple[K, CatalogItem]]:
        """Adds a record of a row that has none here; returns those that made room, perhaps this one."""
        self.records[row] = record
        self._updated[row] = update
        self.bytes += record_bytes(record)
        if len(self._oldest) > 2 * len(self.records) + 64:  # Most entries are stale.
            self._oldest = [(updated, at) for at, updated in self._updated.items()]
            heapq.heapify(self._oldest)
        else:
            heapq.heappush(self._oldest, (update, row))
        lost = []
        while self._over():
            updated, oldest = heapq.heappop(self._oldest)
            if self._updated.get(oldest) == updated:
                lost.append((oldest, self.records[oldest]))
                self.pop(oldest)
        return lost

    def pop(self, row: K) -> CatalogItem | None:
        """Takes the record of a row out, if there is one."""
        record = self.records.pop(row, None)
        if record is not None:
            del self._updated[row]
            self.bytes -= record_bytes(record)
        return record

    def _over(self) -> bool:
        if self._max_records is not None and len(self.records) > self._max_records:
            return True
        return self.bytes > self._max_bytes and len(self.records) > 1


def record_bytes(record: CatalogItem) -> int:
    """About the memory that a record takes."""
    pairs = chain.from_iterable(record.attributes)
    texts = sum(map(getsizeof, chain((record.item_id, record.title), record.categories, pairs)))
    return _RECORD_BYTES + texts + 32 * len(record.features) + 64 * len(record.attributes)
