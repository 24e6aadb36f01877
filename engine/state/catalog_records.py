"""The newest catalog record of each item, within limits of number and memory.

Items that events name keep their records as long as there is any other to give up. So a producer that invents items
pushes out what it has invented itself, and not the titles of the items that people use. Which records a full catalog
drops therefore depends on how far the events had been read by then; all else follows from the log alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import chain
from sys import getsizeof

from engine.events.batch import CatalogItem

_Heap = list[tuple[int, int]]

_RECORD_BYTES = 600  # of a record without texts, and of its places in dictionaries


class CatalogRecords:
    """Records by item row.

    Args:
        max_records: records it holds.
        max_bytes: memory that they may take, of which at least the newest record is kept.

    Attributes:
        evicted: records that made room for others.
    """

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records, self._max_bytes = max_records, max_bytes
        self._records: dict[int, CatalogItem] = {}  # the longest not updated first
        self._updated: dict[int, int] = {}  # row -> number of the update that its record came with
        self._updates = 0
        self._named: set[int] = set()
        # (update, row) of unnamed and of named items, the longest not updated on top; stale entries are passed over.
        self._oldest: tuple[_Heap, _Heap] = ([], [])
        self.bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, row: int) -> bool:
        return row in self._records

    def rows(self) -> list[int]:
        """Rows with a record, the longest not updated first."""
        return list(self._records)

    def records(self) -> list[CatalogItem]:
        """The records of `rows`."""
        return list(self._records.values())

    def get(self, row: int) -> CatalogItem | None:
        """The record of a row, if there is one."""
        return self._records.get(row)

    def put(self, row: int, record: CatalogItem) -> list[int]:
        """Keeps the record; returns the rows, perhaps this one, that have lost theirs to make room."""
        self.remove(row)
        self._records[row] = record
        self._updates += 1
        self._updated[row] = self._updates
        self.bytes += record_bytes(record)
        self._push(row)
        lost = []
        while len(self) > self._max_records or (self.bytes > self._max_bytes and len(self) > 1):
            oldest = self._pop()
            self.remove(oldest)
            lost.append(oldest)
        self.evicted += len(lost)
        return lost

    def remove(self, row: int) -> None:
        """Drops the record of a row, if there is one."""
        record = self._records.pop(row, None)
        if record is not None:
            del self._updated[row]
            self.bytes -= record_bytes(record)

    def name(self, rows: Iterable[int]) -> None:
        """Notes that events name the items of `rows`."""
        for row in rows:
            self._named.add(row)
            self._push(row)

    def unname(self, rows: Iterable[int]) -> None:
        """Notes that no event names the items of `rows` any more."""
        for row in rows:
            self._named.discard(row)
            self._push(row)

    def _push(self, row: int) -> None:
        if row not in self._records:
            return
        named = row in self._named
        heap = self._oldest[named]
        if len(heap) > 2 * len(self) + 64:  # Most entries are stale.
            heap[:] = [(update, at) for at, update in self._updated.items() if (at in self._named) == named]
            heapq.heapify(heap)
        heapq.heappush(heap, (self._updated[row], row))

    def _pop(self) -> int:
        """The row whose record makes room: the longest not updated of the unnamed or, without any, of the named."""
        for named in (False, True):
            heap = self._oldest[named]
            while heap:
                update, row = heapq.heappop(heap)
                if self._updated.get(row) == update and (row in self._named) == named:
                    return row
        raise AssertionError("every record has an entry in the heap of its kind")


def record_bytes(record: CatalogItem) -> int:
    """About the memory that a record takes."""
    pairs = chain.from_iterable(record.attributes)
    texts = sum(map(getsizeof, chain((record.item_id, record.title), record.categories, pairs)))
    return _RECORD_BYTES + texts + 32 * len(record.features) + 64 * len(record.attributes)
