"""When rows are due: each at most once, at a time in ms.

Catalogs bring times by the hundred thousand, all at once, and later by the few. So many times are kept in sorted
arrays, and the few that came since in a heap, until there are enough of them to be sorted, too.

Shapes: N one past the highest row seen, R rows.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from engine.state.folded import NO_ROWS, Rows

NEVER = int(np.iinfo(np.int64).max)
_FEW = 1024  # times for which sorting is not worth it

Times = NDArray[np.int64]


class Timetable:
    """Rows by the time at which they are due.

    Attributes:
        count: rows that are due at some time.
    """

    def __init__(self) -> None:
        self.count = 0
        self._due_ms: Times = np.zeros(0, np.int64)  # [N], NEVER where a row is not due
        # Entries of both kinds are void where `_due_ms` says otherwise.
        self._sorted_ms: Times = np.zeros(0, np.int64)
        self._sorted_rows: Rows = NO_ROWS
        self._next = 0  # place of the first sorted entry that has not been taken
        self._added: list[tuple[int, int]] = []  # heap of (time, row)

    @property
    def entries(self) -> int:
        """Entries kept, void ones included."""
        return len(self._sorted_ms) - self._next + len(self._added)

    def put(self, rows: Rows, due_ms: Times) -> None:
        """Distinct `rows` [R] are due at `due_ms` [R] from now on, and at no other time; NEVER: at none."""
        if len(rows) == 0:
            return
        self._grow(int(rows.max()) + 1)
        before = self._due_ms[rows]
        self.count += int(np.count_nonzero(due_ms < NEVER)) - int(np.count_nonzero(before < NEVER))
        self._due_ms[rows] = due_ms
        new = (due_ms != before) & (due_ms < NEVER)
        added = int(np.count_nonzero(new))
        if added > _FEW:
            self._sort()
            return
        for due, row in zip(due_ms[new].tolist(), rows[new].tolist(), strict=True):
            heapq.heappush(self._added, (due, row))
        if len(self._added) > _FEW + self.count // 4:
            self._sort()

    def due(self, now_ms: int) -> bool:
        """Whether any row may be due by now; a void entry may say so, too."""
        if self._next < len(self._sorted_ms) and self._sorted_ms[self._next] <= now_ms:
            return True
        return bool(self._added) and self._added[0][0] <= now_ms

    def take(self, now_ms: int, limit: int) -> Rows:
        """Up to about `limit` rows that are due by now, the longest due first of each kind; they are not due again."""
        last = self._next + int(np.searchsorted(self._sorted_ms[self._next : self._next + limit], now_ms, side="right"))
        part = slice(self._next, last)
        rows, due_ms = self._sorted_rows[part], self._sorted_ms[part]
        rows, self._next = rows[self._due_ms[rows] == due_ms], last
        self._due_ms[rows] = NEVER
        added: list[int] = []
        while self._added and self._added[0][0] <= now_ms and len(added) < limit:
            due, row = heapq.heappop(self._added)
            if self._due_ms[row] == due:
                self._due_ms[row] = NEVER
                added.append(row)
        self.count -= len(rows) + len(added)
        return np.concatenate([rows, np.array(added, np.int64)])

    def _grow(self, rows: int) -> None:
        if rows > len(self._due_ms):
            more = max(rows, 2 * len(self._due_ms), _FEW) - len(self._due_ms)
            self._due_ms = np.concatenate([self._due_ms, np.full(more, NEVER)])

    def _sort(self) -> None:
        """Makes the sorted entries again from all times, which leaves no void ones."""
        rows = np.flatnonzero(self._due_ms < NEVER)
        due_ms = self._due_ms[rows]
        order = np.argsort(due_ms, kind="stable")
        self._sorted_rows, self._sorted_ms, self._next, self._added = rows[order], due_ms[order], 0, []
