"""A copy of the state as it is at one moment, made piece by piece while the state goes on.

The thread that folds also copies, a few megabytes per step; rows that it changes before their turn are kept as they
were (`TableCopy`). So nothing waits, and nothing is read while it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.events.batch import CatalogItem
from engine.state.merged import MergedGraph
from engine.state.nodes import NodesCopy
from engine.state.slice import SavedSlice, Slice
from engine.state.state import State
from engine.state.table import TableCopy

_BYTES_PER_ID = 256  # as long as it takes to copy so many bytes


@dataclass(frozen=True)
class SavedCatalog:
    """The catalog at rest.

    Attributes:
        items: records that can be folded again.
        positions: next offset to fold by (topic, partition).
        items_folded: records folded so far.
        content: [N, F] float32 by item row; None where it is made anew from the records.
        rows: [len(items)] int64 row of each record in `content`.
        began: by (topic, partition), the first offset that was folded; absent where an older version does not say.
        has_attributes: whether attributes were kept when the records were saved; older versions dropped them.
        used: how many of the items, the first ones, have their records only because events name them.
        dropped: whether records were dropped because others came; older versions do not say, and may have done it.
    """

    items: Sequence[CatalogItem]
    positions: Mapping[tuple[str, int], int]
    items_folded: int
    content: Tensor | None = None
    rows: Tensor | None = None
    began: Mapping[tuple[str, int], int] = field(default_factory=dict)
    has_attributes: bool = True
    used: int = 0
    dropped: bool = True


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
        self._ids = [NodesCopy(nodes) for nodes in (slice_.users, slice_.items, slice_.relations.targets)]
        # The small rest is taken at once; tables and ids follow.
        self._rest = slice_.save({}, (), (), ())

    def pieces(self, piece_bytes: int) -> Iterator[int]:
        """Copies a piece per step; yields its bytes, at most about `piece_bytes`."""
        for table in self._tables.values():
            yield from table.pieces(piece_bytes)
        for ids in self._ids:
            for count in ids.pieces(max(1, piece_bytes // _BYTES_PER_ID)):
                yield count * _BYTES_PER_ID

    def saved(self) -> SavedSlice:
        """The whole copy, once there are no more pieces."""
        rest = self._rest
        tables = {name: copy.data for name, copy in self._tables.items()}
        users, items, targets = (copy.ids for copy in self._ids)
        return SavedSlice(tables, users, items, rest.recent_ids, rest.numbers, rest.lists, targets, rest.began)


class _Pieces:
    """Makes pieces until they come to `piece_bytes`: of many small tables, several in one step."""

    def __init__(self, copies: Iterable[SliceCopy | TableCopy], piece_bytes: int) -> None:
        self._pieces = (size for copy in copies for size in copy.pieces(piece_bytes))
        self._piece_bytes = piece_bytes

    def step(self) -> bool:
        """True once all are made."""
        made = 0
        while made < self._piece_bytes:
            size = next(self._pieces, None)
            if size is None:
                return True
            made += size
        return False


class StateCopy:
    """All slices and the catalog, as they were when the copy began."""

    def __init__(self, state: State, piece_bytes: int) -> None:
        self._slices = {partition: SliceCopy(placed.slice) for partition, placed in state.slices.items()}
        self._content = state.catalog.copy_contents()
        tables = [self._content] if self._content else []
        self._pieces = _Pieces([*self._slices.values(), *tables], piece_bytes)
        self._events_topic = state.events_topic
        # A record is never changed, so that a list of them is a copy.
        self._catalog = SavedCatalog(
            state.catalog.records(),
            state.catalog_positions,
            state.items_folded,
            self._content.data if self._content else None,  # filled as the pieces are made
            torch.tensor(state.catalog.rows(), dtype=torch.int64) if self._content else None,
            state.catalog_began,
            used=state.records.used,
            dropped=state.records.dropped,
        )

    def step(self) -> bool:
        """Copies one piece; True once the copy is whole."""
        return self._pieces.step()

    def saved(self) -> SavedState:
        """The whole copy."""
        slices = {partition: copy.saved() for partition, copy in self._slices.items()}
        return SavedState(self._events_topic, slices, self._catalog)


class GraphCopy:
    """The edges of the state, in the same rows, as they were when the copy began."""

    def __init__(self, state: State, piece_bytes: int) -> None:
        self._state = state
        self._copies = {
            partition: (placed.slot, placed.item_of[: placed.slice.items.rows].copy(), SliceCopy(placed.slice))
            for partition, placed in state.slices.items()
        }
        self._pieces = _Pieces([copy for *_, copy in self._copies.values()], piece_bytes)

    def step(self) -> bool:
        """Copies one piece; True once the copy is whole."""
        return self._pieces.step()

    def graph(self) -> MergedGraph:
        """The whole copy; may be called once, in any thread."""
        slices = {at: (slot, item_of, copy.saved()) for at, (slot, item_of, copy) in self._copies.items()}
        self._copies.clear()
        return self._state.graph_of(slices)
