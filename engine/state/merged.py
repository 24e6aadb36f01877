"""Several slices seen as one graph, in rows that all rooms share.

A user's row is `slot * stride + its row in the slice`: slices share no users. An item has one row for the process and
one in every slice that has met it. Of an item's edges in several slices the newest by event time count; where times are
equal, the order of partitions decides, so what is read does not depend on how partitions were interleaved.

Shapes: B rows asked for, n edges of each, P slices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.state.ring import Neighbors, Ring, padded_left
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

    def users(self, edges: Neighbors) -> Neighbors:
        """Edges that lead to users, in rows of the process."""
        return replace(edges, row=torch.where(edges.mask, edges.row + self.first_user, -1))

    def items(self, edges: Neighbors) -> Neighbors:
        """Edges that lead to items, in rows of the process."""
        return replace(edges, row=torch.where(edges.mask, self.item_of[edges.row.clamp_min(0)], -1))


Slots = Mapping[int, Placed]  # by partition, rising


@dataclass(frozen=True)
class UserEdges:
    """The users' histories; an `Edges`."""

    slices: Slots
    size: int
    stride: int

    def latest(self, rows: Tensor, n: int | None = None) -> Neighbors:
        """[B, n] items of each user in `rows` [B]."""
        n = self.size if n is None else min(n, self.size)
        if len(self.slices) == 1:
            (placed,) = self.slices.values()
            return placed.items(placed.slice.graph.user_items.latest(rows - placed.first_user, n))
        found = no_edges(len(rows), n)
        slot = rows // self.stride
        for placed in self.slices.values():
            at = (slot == placed.slot).nonzero().squeeze(1)
            if len(at):
                part = placed.items(placed.slice.graph.user_items.latest(rows[at] - placed.first_user, n))
                for column, new in zip(found.columns(), part.columns(), strict=True):
                    column[at] = new
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
        outward: edges of a slice in rows of the process.
        inward: rows of the process, that edges may lead to, in rows of the slice.
    """

    slices: Slots
    size: int
    ring: Callable[[Slice], Ring]
    outward: Callable[[Placed, Neighbors], Neighbors]
    inward: Callable[[Placed, Tensor], Tensor]

    def latest(self, rows: Tensor, n: int | None = None) -> Neighbors:
        """[B, n] newest edges of each item in `rows` [B]."""
        n = self.size if n is None else min(n, self.size)
        parts = []
        for placed in self.slices.values():
            local = placed.local(rows)
            at = (local >= 0).nonzero().squeeze(1)
            if len(at) == len(rows):
                parts.append(self.outward(placed, self.ring(placed.slice).latest(local, n)))
            elif len(at):
                part = no_edges(len(rows), n)
                found = self.outward(placed, self.ring(placed.slice).latest(local[at], n))
                for column, new in zip(part.columns(), found.columns(), strict=True):
                    column[at] = new
                parts.append(part)
        if len(self.slices) == 1 and parts:
            return parts[0]
        # By time also where one slice alone knows these items: what is asked for with them must not matter.
        return newest(parts, n) if parts else no_edges(len(rows), n)

    def naming(self, rows: Tensor) -> Tensor:
        """[R] int64 items with an edge to any of `rows`."""
        found = [rows[:0]]
        for placed in self.slices.values():
            local = self.ring(placed.slice).naming(self.inward(placed, rows))
            found.append(placed.item_of[local])
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

        def users(placed: Placed, rows: Tensor) -> Tensor:
            local = rows - placed.first_user
            return local[(local >= 0) & (local < stride)]

        def items(placed: Placed, rows: Tensor) -> Tensor:
            local = placed.local(rows)
            return local[local >= 0]

        return cls(
            UserEdges(slices, history, stride),
            ItemEdges(slices, neighbors, lambda one: one.graph.item_users, Placed.users, users),
            ItemEdges(slices, neighbors, lambda one: one.graph.item_next, Placed.items, items),
        )


def newest(parts: list[Neighbors], n: int) -> Neighbors:
    """The n newest by time of several sets of edges [B, m] of the same B nodes; of equal times the later set's win."""
    joined = Neighbors(*(torch.cat(columns, dim=1) for columns in zip(*(p.columns() for p in parts), strict=True)))
    # What is no edge sorts before all times.
    time_ms = torch.where(joined.mask, joined.time_ms, -1)
    return padded_left(joined.arranged(time_ms.argsort(dim=1, stable=True)[:, -n:]))


def no_edges(rows: int, n: int) -> Neighbors:
    """[rows, n] of nothing."""
    none = torch.zeros(rows, n, dtype=torch.int64)
    return Neighbors(none - 1, none.clone(), none.clone(), none.to(torch.float32), none.to(torch.int32))
