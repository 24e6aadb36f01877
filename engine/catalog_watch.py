"""Watches the catalog for the streams: which items have changed since the streams were last told.

Records come in any number; what they changed is gathered until there is time to tell the streams. An item whose record
says what it said before has not changed. One that may be recommended from a time on, or until a time, changes then,
without a record.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.generation import Generation
from engine.index.exact import grown
from engine.inference.dirty import DirtyRows
from engine.ranking.catalog_change import CatalogChange
from engine.state.state import State

_STALE = 1024  # times noted in vain before they are cleared away

Rows = NDArray[np.int64]


class CatalogWatch:
    """For the engine's thread.

    Args:
        clock_ms: wall clock, by which availability is judged.

    Attributes:
        forbids: whether a changed item may not be listed any more.
    """

    def __init__(self, clock_ms: Callable[[], int] = lambda: int(time.time() * 1000)) -> None:
        self._clock_ms = clock_ms
        self._noted = DirtyRows()  # with a record since the last look
        self._changed = DirtyRows()  # the streams are to be told of
        self._fingerprint = np.zeros(0, np.int64)  # [N] of what was last seen of an item; 0: nothing was
        self._kind = np.zeros(0, np.int64)  # [N] of its categories, and of whether it was deleted, as last seen
        self._altered = DirtyRows()  # changed items of which that has changed
        self._next_ms: dict[int, int] = {}  # when an item begins or ceases to be available next
        self._times: list[tuple[int, int]] = []  # heap of (time, row); a time that `_next_ms` lacks is void
        self._state: State | None = None
        self.forbids = False

    def note(self, rows: Rows) -> None:
        """The catalog may say something else of these items [R] than before."""
        self._noted.add(rows)

    def look(self, state: State) -> bool:
        """Brings what is known up to date; returns whether the streams are to be told of anything.

        Costs a few microseconds for each item noted, and nothing else.
        """
        if state is not self._state:  # a snapshot may have brought items that no record of this run has named
            self._state = state
            everything = np.arange(len(state.items))
            self._schedule(everything, state)
            self._make_room(state)
            self._kind[everything] = _kinds(everything, state)
        if len(self._noted):
            rows = self._noted.take(len(self._noted))
            self._change(self._really_changed(rows, state), state)
            self._schedule(rows, state)
        if self._times and self._times[0][0] <= self._clock_ms():
            self._change(self._due(state), state)
        return len(self._changed) > 0

    def take(self, state: State, generation: Generation | None) -> CatalogChange:
        """All that has changed since it was last taken."""
        rows = np.sort(self._changed.take(len(self._changed)))
        altered = np.isin(rows, self._altered.take(len(self._altered)))
        self.forbids = False
        return CatalogChange.of(rows, altered, state, generation, self._clock_ms())

    def _change(self, rows: Rows, state: State) -> None:
        self._changed.add(rows)
        self.forbids = self.forbids or not state.catalog.servable(rows, self._clock_ms()).all()

    def _really_changed(self, rows: Rows, state: State) -> Rows:
        self._make_room(state)
        found = np.array([state.catalog.fingerprint(row) for row in rows.tolist()], np.int64)
        changed = self._fingerprint[rows] != found
        self._fingerprint[rows] = found
        kind = _kinds(rows, state)
        self._altered.add(rows[self._kind[rows] != kind])
        self._kind[rows] = kind
        return rows[changed]

    def _make_room(self, state: State) -> None:
        if len(self._fingerprint) < len(state.items):
            self._fingerprint = grown(self._fingerprint, len(state.items))
            self._kind = grown(self._kind, len(state.items))

    def _schedule(self, rows: Rows, state: State) -> None:
        """Notes when each of `rows` begins or ceases to be available next."""
        now_ms = self._clock_ms()
        from_ms, until_ms = state.catalog.windows(rows)
        never = np.iinfo(np.int64).max
        at_ms = np.where(from_ms > now_ms, from_ms, np.where(until_ms > now_ms, until_ms, never))
        for row in rows[at_ms == never].tolist() if self._next_ms else ():
            self._next_ms.pop(row, None)
        for row, at in zip(rows[at_ms < never].tolist(), at_ms[at_ms < never].tolist(), strict=True):
            if self._next_ms.get(row) != at:
                self._next_ms[row] = at
                heapq.heappush(self._times, (at, row))
        if len(self._times) > 2 * len(self._next_ms) + _STALE:
            self._times = [(at, row) for row, at in self._next_ms.items()]
            heapq.heapify(self._times)

    def _due(self, state: State) -> Rows:
        """Items whose time has come."""
        now_ms, rows = self._clock_ms(), []
        while self._times and self._times[0][0] <= now_ms:
            at, row = heapq.heappop(self._times)
            if self._next_ms.get(row) == at:
                del self._next_ms[row]
                rows.append(row)
        self._schedule(np.array(rows, np.int64), state)
        return np.array(rows, np.int64)


def _kinds(rows: Rows, state: State) -> Rows:
    """[R] a number of the categories of an item, and of whether it is deleted; never 0, which nothing was seen of."""
    kind: Rows = (state.catalog.group[rows] ^ state.catalog.deleted(rows)) * 2 + 1
    return kind
