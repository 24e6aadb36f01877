"""Several slices seen as one graph, in rows that all rooms share.

A user's row is `slot * stride + its row in the slice`: slices share no users. An item has one row for the process and
one in every slice that has met it. Of an item's edges in several slices the newest by event time count; where times are
equal, the order of partitions decides, so what is read does not depend on how partitions were interleaved.

Shapes: B rows asked for, n edges of each, P slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.state.folded import Inserted, SliceFolded
from engine.state.kernels import merge_edges
from engine.state.merged_kernels import ROOM, latest_of_slices
from engine.state.ring import NO_INTS, NO_LONGS, Neighbors, Ring, no_edges
from engine.state.slice import Slice
from engine.state.table import reserve

Longs = NDArray[np.int64]


class Placed:
    """A slice with its place among the rows of the process.

    Args:
        slot: which stretch of user rows is its own.
        stride: user rows in a slot.
        items: N, item rows that the process may have.

    Attributes:
        item_of: row of the process, by row of the slice.
        row_of: [N] 1 + the row of the slice, by row of the process.
    """

    def __init__(self, slice_: Slice, slot: int, stride: int, items: int) -> None:
        self.slice = slice_
        self.slot = slot
        self.first_user = slot * stride
        self.item_of: Longs = reserve(slice_.items.limit, (), torch.int64).numpy()
        self.row_of: NDArray[np.int32] = reserve(items, (), torch.int32).numpy()

    def place(self, local: Longs, rows: Longs) -> None:
        """Says which rows of the process the items `local` [R] have."""
        self.item_of[local] = rows
        self.row_of[rows] = local + 1

    def displace(self, local: Longs) -> Longs:
        """The items `local` [R] are gone from the slice; returns the rows of the process that they had."""
        rows = self.item_of[local]
        rows = rows[self.row_of[rows] == local + 1]  # one that came and went within a batch never had a row
        self.row_of[rows] = 0
        return rows

    def unplaced(self, local: Longs) -> Longs:
        """Those of the items `local` [R] that have no row of the process, each once."""
        lacking = self.row_of[self.item_of[local]] != local + 1
        return np.unique(local[lacking]) if lacking.any() else local[:0]

    def local(self, rows: Longs) -> Longs:
        """[R] rows of the slice of items, -1 where it has not met one."""
        return self.row_of[rows].astype(np.int64) - 1

    def shared(self, folded: SliceFolded) -> Inserted:
        """User, item, previous and session of each event that was folded, in rows of the process."""
        previous = np.where(folded.previous >= 0, self.item_of[folded.previous], -1)
        return folded.user + self.first_user, self.item_of[folded.item], previous, folded.session

    def local_users(self, rows: Longs) -> Longs:
        """[R] rows of the slice of users, -1 where one is not of this slice."""
        local = rows - self.first_user
        return np.where((local >= 0) & (local < self.slice.users.limit), local, -1)


def free_slot(taken: Iterable[Placed]) -> int:
    """The first slot that none of these has."""
    slots = {placed.slot for placed in taken}
    return next(slot for slot in range(len(slots) + 1) if slot not in slots)


Slots = Mapping[int, Placed]  # by partition, rising


class RingsOfSlices:
    """The rings of several slices, to be read by one compiled call.

    Args:
        room: of a slice, the row that `latest_of_slices` takes.
    """

    def __init__(self, slices: Slots, room: Callable[[Placed], tuple[int, ...]]) -> None:
        self._slices, self._room = slices, room
        self._of: tuple[Placed, ...] = ()  # It keeps the tables at the addresses below.
        self._rooms = np.zeros((0, ROOM), np.int64)

    def rooms(self) -> Longs:
        """[P, ROOM] of the slices that there are now, in their order."""
        slices = tuple(self._slices.values())
        if slices != self._of:
            rooms = [self._room(placed) for placed in slices]
            self._rooms = np.array(rooms, np.int64).reshape(len(slices), ROOM)
            self._of = slices
        return self._rooms


@dataclass(frozen=True)
class UserEdges:
    """The users' histories; an `Edges`."""

    slices: Slots
    size: int
    rings: RingsOfSlices

    @classmethod
    def of(cls, slices: Slots, size: int) -> UserEdges:
        """Reads `slices` as they are at each call."""

        def room(placed: Placed) -> tuple[int, ...]:
            ring = placed.slice.graph.user_items
            return ring.room(NO_INTS, placed.item_of, placed.first_user)

        return cls(slices, size, RingsOfSlices(slices, room))

    def rooms(self) -> Longs:
        """See `Edges`."""
        return self.rings.rooms()

    def latest(self, rows: Tensor, n: int | None = None) -> Neighbors:
        """[B, n] items of each user in `rows` [B]."""
        found = no_edges(len(rows), self.size if n is None else min(n, self.size))
        latest_of_slices(self.rooms(), rows.numpy(), False, *found)
        return Neighbors.of(found)

    def naming(self, rows: Tensor) -> Tensor:
        """[R] int64 users with any of the items `rows` in their history."""
        found = []
        for placed in self.slices.values():
            local = placed.local(rows.numpy())
            named = placed.slice.graph.user_items.naming(torch.from_numpy(local[local >= 0]))
            found.append(named + placed.first_user)
        return torch.cat([rows[:0], *found])


@dataclass(frozen=True)
class ItemEdges:
    """What items lead to, users or items; an `Edges`.

    Args:
        ring: the ring of a slice.
        to_items: whether its edges lead to items.
    """

    slices: Slots
    size: int
    ring: Callable[[Slice], Ring]
    to_items: bool
    rings: RingsOfSlices

    @classmethod
    def of(cls, slices: Slots, size: int, ring: Callable[[Slice], Ring], *, to_items: bool) -> ItemEdges:
        """Reads `slices` as they are at each call; arguments as of the class."""

        def room(placed: Placed) -> tuple[int, ...]:
            outward, first = (placed.item_of, 0) if to_items else (NO_LONGS, placed.first_user)
            return ring(placed.slice).room(placed.row_of, outward, first)

        return cls(slices, size, ring, to_items, RingsOfSlices(slices, room))

    def rooms(self) -> Longs:
        """See `Edges`."""
        return self.rings.rooms()

    def latest(self, rows: Tensor, n: int | None = None) -> Neighbors:
        """[B, n] newest edges of each item in `rows` [B]."""
        found = no_edges(len(rows), self.size if n is None else min(n, self.size))
        # By time also where one slice alone knows these items: what is asked for with them must not matter.
        latest_of_slices(self.rooms(), rows.numpy(), len(self.slices) > 1, *found)
        return Neighbors.of(found)

    def naming(self, rows: Tensor) -> Tensor:
        """[R] int64 items with an edge to any of `rows`."""
        found = [rows[:0]]
        for placed in self.slices.values():
            local = placed.local(rows.numpy()) if self.to_items else placed.local_users(rows.numpy())
            named = self.ring(placed.slice).naming(torch.from_numpy(local[local >= 0]))
            found.append(torch.from_numpy(placed.item_of[named.numpy()]))
        return torch.cat(found).unique()


@dataclass(frozen=True)
class MergedGraph:
    """A `LiveGraph` over slices."""

    user_items: UserEdges
    item_users: ItemEdges
    item_next: ItemEdges

    @classmethod
    def of(cls, slices: Slots, history: int, neighbors: int, stride: int) -> MergedGraph:
        """Reads `slices` as they are at each call."""
        return cls(
            UserEdges.of(slices, history),
            ItemEdges.of(slices, neighbors, lambda one: one.graph.item_users, to_items=False),
            ItemEdges.of(slices, neighbors, lambda one: one.graph.item_next, to_items=True),
        )


def newest(sets: Neighbors, n: int) -> Neighbors:
    """[B, n] the newest by time of several sets of edges [P, B, m] of the same nodes; of equal times the later wins."""
    found = no_edges(sets.row.shape[1], n)
    merge_edges(*sets.arrays(), *found)
    return Neighbors.of(found)
