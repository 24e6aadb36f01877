"""Several slices seen as one graph, in rows that all rooms share.

A user's row is `slot * stride + its row in the slice`: slices share no users. An item has one row for the process and
one in every slice that has met it. Of an item's edges in several slices the newest by event time count; where times are
equal, the order of partitions decides, so what is read does not depend on how partitions were interleaved.

Shapes: B rows asked for, n edges of each, P slices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.state.kernels import merge_edges
from engine.state.ring import Neighbors, Ring
from engine.state.slice import Slice
from engine.state.table import reserve


class Placed:
    """A slice with its place among the rows of the process.

    Args:
        slot: which stretch of user rows is its own.
        stride: user rows in a slot.
        items: item rows that the process may have.
    """

    def __init__(self, slice_: Slice, slot: int, stride: int, items: int) -> None:
        self.slice = slice_
        self.slot = slot
        self.first_user = slot * stride
        self.item_of = reserve(slice_.items.limit, (), torch.int64)  # row of the process, by row of the slice
        self._local = reserve(items, (), torch.int32)  # 1 + row of the slice, by row of the process

    def place(self, local: Tensor, rows: Tensor) -> None:
        """Says which rows of the process the items `local` [R] have."""
        self.item_of[local] = rows
        self._local[rows] = (local + 1).to(torch.int32)

    def displace(self, local: Tensor) -> Tensor:
        """The items `local` [R] are gone from the slice; returns the rows of the process that they had."""
        rows = self.item_of[local]
        rows = rows[self._local[rows] == local + 1]  # one that came and went within a batch never had a row
        self._local[rows] = 0
        return rows

    def local(self, rows: Tensor) -> Tensor:
        """[R] int64 rows of the slice of items, -1 where it has not met one."""
        return self._local[rows].to(torch.int64) - 1

    def local_users(self, rows: Tensor) -> Tensor:
        """[R] int64 rows of the slice of users, -1 where one is not of this slice."""
        local = rows - self.first_user
        return torch.where((local >= 0) & (local < self.slice.users.limit), local, -1)

    @property
    def row_of(self) -> Tensor:
        """[N] int32 1 + the row of the slice, by row of the process."""
        return self._local


Slots = Mapping[int, Placed]  # by partition, rising


@dataclass(frozen=True)
class UserEdges:
    """The users' histories; an `Edges`."""

    slices: Slots
    size: int

    def latest(self, rows: Tensor, n: int | None = None) -> Neighbors:
        """[B, n] items of each user in `rows` [B]."""
        found = Neighbors.none(len(rows), self.size if n is None else min(n, self.size))
        for placed in self.slices.values():
            placed.slice.graph.user_items.read(found, rows, first=placed.first_user, outward=placed.item_of)
        return found

    def naming(self, rows: Tensor) -> Tensor:
        """[R] int64 users with any of the items `rows` in their history."""
        found = []
        for placed in self.slices.values():
            local = placed.local(rows)
            found.append(placed.slice.graph.user_items.naming(local[local >= 0]) + placed.first_user)
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

    def latest(self, rows: Tensor, n: int | None = None) -> Neighbors:
        """[B, n] newest edges of each item in `rows` [B]."""
        n = self.size if n is None else min(n, self.size)
        sets = Neighbors.none(len(self.slices), len(rows), n)
        for at, placed in enumerate(self.slices.values()):
            one = sets.select(at)
            if self.to_items:
                self.ring(placed.slice).read(one, rows, inward=placed.row_of, outward=placed.item_of)
            else:
                self.ring(placed.slice).read(one, rows, inward=placed.row_of, first=placed.first_user)
        # By time also where one slice alone knows these items: what is asked for with them must not matter.
        return sets.select(0) if len(self.slices) == 1 else newest(sets, n)

    def naming(self, rows: Tensor) -> Tensor:
        """[R] int64 items with an edge to any of `rows`."""
        found = [rows[:0]]
        for placed in self.slices.values():
            local = placed.local(rows) if self.to_items else placed.local_users(rows)
            found.append(placed.item_of[self.ring(placed.slice).naming(local[local >= 0])])
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
            UserEdges(slices, history),
            ItemEdges(slices, neighbors, lambda one: one.graph.item_users, to_items=False),
            ItemEdges(slices, neighbors, lambda one: one.graph.item_next, to_items=True),
        )


def newest(sets: Neighbors, n: int) -> Neighbors:
    """[B, n] the newest by time of several sets of edges [P, B, m] of the same nodes; of equal times the later wins."""
    found = Neighbors.none(sets.row.shape[1], n)
    merge_edges(*(column.numpy() for column in (*sets.columns(), *found.columns())))
    return found
