"""A copy of the state as it is at one moment, made piece by piece while the state goes on.

The thread that folds also copies, a few megabytes per step; rows that it changes before their turn are kept as they
were (`TableCopy`). So nothing waits, and nothing is read while it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.events.batch import CatalogItem
from engine.state.merged import MergedGraph
from engine.state.nodes import NodesCopy
from engine.state.slice import SavedSlice, Slice
from engine.state.state import State

_IDS_PER_PIECE = 16_384
_RECORDS_PER_PIECE = 1024


@dataclass(frozen=True)
class SavedCatalog:
    """The catalog at rest.

    Attributes:
        items: records that can be folded again, the longest not updated first.
        positions: next offset to fold by (topic, partition).
        items_folded: records folded so far.
    """

    items: Sequence[CatalogItem]
    positions: Mapping[tuple[str, int], int]
    items_folded: int


@dataclass(frozen=True)
class SavedState:
    """The state at rest: the slices by partition of the events topic, and the catalog."""

    events_topic: str
    slices: Mapping[int, SavedSlice]
    catalog: SavedCatalog

    @property
    def positions(self) -> Mapping[tuple[str, int], int]:
        """Next offset to fold by (topic, partition)."""
        events = {(self.events_topic, at): saved.numbers["position"] for at, saved in self.slices.items()}
        return {**self.catalog.positions, **events}


class SliceCopy:
    """One slice, as it was when the copy began."""

    def __init__(self, slice_: Slice) -> None:
        self._tables = {name: table.copy(rows) for name, (table, rows) in slice_.tables().items()}
        self._users, self._items = NodesCopy(slice_.users), NodesCopy(slice_.items)
        # The small rest is taken at once; tables and ids follow.
        self._rest = slice_.save({}, (), ())

    def pieces(self, piece_bytes: int) -> Iterator[None]:
        """Copies one piece per step."""
        for table in self._tables.values():
            for _ in table.pieces(piece_bytes):
                yield
        for ids in (self._users, self._items):
            for _ in ids.pieces(_IDS_PER_PIECE):
                yield

    def saved(self) -> SavedSlice:
        """The whole copy, once there are no more pieces."""
        rest = self._rest
        tables = {name: copy.data for name, copy in self._tables.items()}
        return SavedSlice(tables, self._users.ids, self._items.ids, rest.recent_ids, rest.numbers, rest.lists)


class StateCopy:
    """All slices and the catalog, as they were when the copy began."""

    def __init__(self, state: State, piece_bytes: int) -> None:
        self._slices = {partition: SliceCopy(placed.slice) for partition, placed in state.slices.items()}
        self._piece_bytes = piece_bytes
        self._state = state
        self._catalog: list[CatalogItem] = []
        self._catalog_rows = state.catalog.rows()
        self._catalog_positions = state.catalog_positions
        self._items_folded = state.items_folded
        self._pieces = self._walk()

    def step(self) -> bool:
        """Copies one piece; True once the copy is whole."""
        return next(self._pieces, True) is True

    def saved(self) -> SavedState:
        """The whole copy."""
        slices = {partition: copy.saved() for partition, copy in self._slices.items()}
        catalog = SavedCatalog(self._catalog, self._catalog_positions, self._items_folded)
        return SavedState(self._state.events_topic, slices, catalog)

    def _walk(self) -> Iterator[None]:
        for copy in self._slices.values():
            yield from copy.pieces(self._piece_bytes)
        # Records that come meanwhile may be among these: they are folded again after a restore, and the newest wins.
        catalog, items = self._state.catalog, self._state.items
        for first in range(0, len(self._catalog_rows), _RECORDS_PER_PIECE):
            rows = self._catalog_rows[first : first + _RECORDS_PER_PIECE]
            self._catalog += [catalog.record(row, items.id_of(row)) for row in rows if row in catalog]
            yield


class GraphCopy:
    """The edges of the state, in the same rows, as they were when the copy began."""

    def __init__(self, state: State, piece_bytes: int) -> None:
        self._state = state
        self._copies = {
            partition: (placed.slot, placed.item_of[: placed.slice.items.rows].clone(), SliceCopy(placed.slice))
            for partition, placed in state.slices.items()
        }
        self._pieces = (piece for *_, copy in self._copies.values() for piece in copy.pieces(piece_bytes))

    def step(self) -> bool:
        """Copies one piece; True once the copy is whole."""
        return next(self._pieces, True) is True

    def graph(self) -> MergedGraph:
        """The whole copy; may be called in any thread."""
        return self._state.graph_of(
            {at: (slot, item_of, copy.saved()) for at, (slot, item_of, copy) in self._copies.items()}
        )
