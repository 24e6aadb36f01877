"""Which items may be shown now: one mask that catalog records and the passing of time keep up to date.

An item may be shown where it is not deleted and now lies within [available_from, available_until); where only items of
the catalog may be shown, the catalog must also have a record of it. The mask is applied before anything is cut to the
best few: to the popular items, to the members of categories, and to the rows of the index.

The wall clock has a say here and in nothing else of the state. So the mask is derived: neither snapshots nor digests
have it.

Shapes: N item rows, R rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernel_cache import record
from engine.state.catalog import Catalog
from engine.state.folded import NO_ROWS, Rows
from engine.state.kernels import compiled
from engine.state.timetable import NEVER, Timetable

Flags = NDArray[np.bool_]

# A clock that is set back by less than this is waited for. Beyond it, all items with times are judged again.
_SET_BACK_MS = 1000


@record("b1[::1]", "i8[::1]", "i8[::1]", "b1[::1]", "i8", "b1")
class Shown(NamedTuple):
    """What says which items may be shown, as compiled code reads it.

    Attributes:
        deleted: [N or more] whether an item is not to be shown at all.
        from_ms, until_ms: [N or more] the time within which it may be shown.
        described: [N or more] whether the catalog has a record of it.
        now_ms: wall clock.
        catalog_only: whether an item needs such a record.
    """

    deleted: Flags
    from_ms: Rows
    until_ms: Rows
    described: Flags
    now_ms: int
    catalog_only: bool


@compiled("b1(Shown, i8)")
def may_show(shown: Shown, row: int) -> bool:
    """Whether an item may be shown to anybody: what `Availability.at` says."""
    if shown.deleted[row] or (shown.catalog_only and not shown.described[row]):
        return False
    return shown.from_ms[row] <= shown.now_ms < shown.until_ms[row]


class Availability:
    """Follows what a catalog says, and the time.

    Args:
        catalog_only: whether an item needs a record of the catalog.

    Attributes:
        now_ms: the time that items are judged by; 0 before `pass_time` was first called.
        count: items that may be shown.
    """

    def __init__(self, catalog: Catalog, *, catalog_only: bool = False) -> None:
        self._catalog = catalog
        self._catalog_only = catalog_only
        self._mask: Flags = np.zeros(0, np.bool_)  # [N or more]
        self._timetable = Timetable()
        self.now_ms = 0
        self.count = 0

    @property
    def waiting(self) -> int:
        """Items that will become available, or cease to be, at a later time."""
        return self._timetable.count

    def now(self, rows: Rows) -> Flags:
        """[R] whether items may be shown now, as far as `pass_time` has come."""
        return self._mask[rows]

    def at(self, rows: Rows, now_ms: int) -> Flags:
        """[R] whether items may be shown at `now_ms`, by what the catalog says now."""
        may = self._catalog.servable(rows, now_ms)
        return may & self._catalog.named(rows) if self._catalog_only else may

    def shown(self, now_ms: int) -> Shown:
        """The same for compiled code. It holds for as long as nothing is folded."""
        return Shown(*self._catalog.times(), now_ms, self._catalog_only)

    def settled(self, now_ms: int) -> bool:
        """Whether `now` says of every item what it is at `now_ms`."""
        return now_ms > self.now_ms - _SET_BACK_MS and not self._timetable.due(now_ms)

    def judge(self, rows: Rows) -> Rows:
        """Looks again at the items `rows` [R], of which the catalog may say something else; returns which changed."""
        if len(rows) == 0:
            return rows
        rows = np.unique(rows)
        if rows[-1] >= len(self._mask):
            more = max(int(rows[-1]) + 1, 2 * len(self._mask), 1024) - len(self._mask)
            self._mask = np.concatenate([self._mask, np.zeros(more, np.bool_)])
        may = self.at(rows, self.now_ms)
        self._timetable.put(rows, self._next_ms(rows))
        changed = self._mask[rows] != may
        self._mask[rows] = may
        self.count += int(np.count_nonzero(may[changed])) - int(np.count_nonzero(~may[changed]))
        return rows[changed]

    def pass_time(self, now_ms: int, limit: int) -> Rows:
        """Judges items by `now_ms` from now on; returns those that changed by it.

        Of items whose time has come, about `limit` are looked at: call it again while it is not `settled`.
        """
        if now_ms <= self.now_ms - _SET_BACK_MS:
            timed = self._catalog.timed()
            self._timetable.put(timed, np.full(len(timed), now_ms))
            self.now_ms = now_ms
        self.now_ms = max(self.now_ms, now_ms)
        if not self._timetable.due(self.now_ms):
            return NO_ROWS
        return self.judge(self._timetable.take(self.now_ms, limit))

    def _next_ms(self, rows: Rows) -> NDArray[np.int64]:
        """[R] when items become available or cease to be next."""
        from_ms, until_ms = self._catalog.windows(rows)
        next_ms = np.where(from_ms > self.now_ms, from_ms, np.where(until_ms > self.now_ms, until_ms, NEVER))
        return np.where(self._catalog.deleted(rows), NEVER, next_ms)
