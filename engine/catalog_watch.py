"""Watches the catalog for the streams: which items have changed since the streams were last told.

Records come in any number; what they changed is gathered until there is time to tell the streams. An item whose record
says what it said before has not changed. One that may be recommended from a time on, or until a time, changes then,
without a record.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.generation import Generation
from engine.index.exact import grown
from engine.inference.dirty import DirtyRows
from engine.ranking.catalog_change import CatalogChange
from engine.state.state import State

_AT_ONCE = 8192  # changed items that the streams are told of together

Rows = NDArray[np.int64]


class CatalogWatch:
    """For the engine's thread.

    Attributes:
        forbids: whether any of the changed items, told or not, could not be listed any more, while some are untold.
    """

    def __init__(self) -> None:
        self._noted = DirtyRows()  # with a record since the last look
        self._timed = DirtyRows()  # available, or no more, since the last look, as time passed
        self._changed = DirtyRows()  # the streams are to be told of
        self._fingerprint = np.zeros(0, np.int64)  # [N] of what was last seen of an item; 0: nothing was
        self._kind = np.zeros(0, np.int64)  # [N] of its categories, and of whether it was available, as last seen
        self._altered = DirtyRows()  # changed items of which that has changed
        self._state: State | None = None
        self.forbids = False

    def note(self, rows: Rows) -> None:
        """The catalog may say something else of these items [R] than before."""
        self._noted.add(rows)

    def note_timed(self, rows: Rows) -> None:
        """These items [R] have become available, or have ceased to be."""
        self._timed.add(rows)

    def look(self, state: State) -> bool:
        """Brings what is known up to date; returns whether the streams are to be told of anything.

        Costs a few microseconds for each item noted, and nothing else.
        """
        if state is not self._state:  # a snapshot may have brought items that no record of this run has named
            self._state = state
            everything = np.arange(len(state.items))
            self._make_room(state)
            self._kind[everything] = _kinds(everything, state)
        if len(self._noted):
            self._change(self._really_changed(self._noted.take(len(self._noted)), state), state)
        if len(self._timed):
            rows = self._timed.take(len(self._timed))
            self._make_room(state)
            self._change(rows[self._differs_in_kind(rows, state)], state)
        return self.waiting

    @property
    def waiting(self) -> bool:
        """Whether the streams are to be told of anything, as of the last look."""
        return len(self._changed) > 0

    def take(self, state: State, generation: Generation | None) -> CatalogChange:
        """What has changed since it was last taken, or a part of it where there is much; the longest changed first."""
        rows = np.sort(self._changed.take(_AT_ONCE))
        altered = self._altered.among(rows)
        self._altered.discard(rows)
        self.forbids = self.forbids and len(self._changed) > 0
        return CatalogChange.of(rows, altered, state, generation)

    def _change(self, rows: Rows, state: State) -> None:
        self._changed.add(rows)
        self.forbids = self.forbids or not state.availability.now(rows).all()

    def _really_changed(self, rows: Rows, state: State) -> Rows:
        self._make_room(state)
        found = np.array([state.catalog.fingerprint(row) for row in rows.tolist()], np.int64)
        changed = self._fingerprint[rows] != found
        self._fingerprint[rows] = found
        return rows[self._differs_in_kind(rows, state) | changed]

    def _differs_in_kind(self, rows: Rows, state: State) -> NDArray[np.bool_]:
        """[R] whether items have other categories, or may be shown and could not be before, or the other way round."""
        kind = _kinds(rows, state)
        differs = self._kind[rows] != kind
        self._altered.add(rows[differs])
        self._kind[rows] = kind
        return differs

    def _make_room(self, state: State) -> None:
        if len(self._fingerprint) < len(state.items):
            self._fingerprint = grown(self._fingerprint, len(state.items))
            self._kind = grown(self._kind, len(state.items))


def _kinds(rows: Rows, state: State) -> Rows:
    """[R] a number of the categories of an item, and of whether it may be shown; never 0, which nothing was seen of."""
    kind: Rows = (state.catalog.group[rows] ^ ~state.availability.now(rows)) * 2 + 1
    return kind
