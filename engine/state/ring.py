"""The most recent edges of every node, in fixed-size ring buffers.

Shapes: N nodes, K edges kept per node, E edges in a batch, B nodes asked for, n of their edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FIRST_CAPACITY = 1024


@dataclass(frozen=True)
class Neighbors:
    """The latest edges of B nodes, oldest first, padded on the left.

    Attributes:
        row: [B, n] int64, -1 where there is no edge.
        time_ms: [B, n] int64 event time, 0 where there is no edge.
        kind: [B, n] int64.
        weight: [B, n] float32.
        session: [B, n] int32 ordinal of the user's session, 0 where there is no edge or the ring keeps none.
    """

    row: Tensor
    time_ms: Tensor
    kind: Tensor
    weight: Tensor
    session: Tensor

    def __len__(self) -> int:
        return len(self.row)

    @property
    def mask(self) -> Tensor:
        """[B, n] bool, True where there is an edge."""
        return self.row >= 0

    def last(self, n: int) -> Neighbors:
        """Only the newest n of each."""
        return Neighbors(*(column[:, -n:] for column in self._columns()))

    def select(self, index: Tensor) -> Neighbors:
        """The nodes at `index` [A] of these B."""
        return Neighbors(*(column[index] for column in self._columns()))

    def _columns(self) -> tuple[Tensor, ...]:
        return self.row, self.time_ms, self.kind, self.weight, self.session


class Ring:
    """Ring buffers over the edges of a temporal graph, growable in N.

    Attributes:
        neighbor: [N, K] int32 row, -1 where the slot is empty.
        degree: [N] int64 edges ever inserted; `degree % K` is the next slot.
        time_ms, kind, weight, session: [N, K] edge features; session only where the ring was made with it.
    """

    def __init__(self, size: int, *, device: torch.device | str = "cpu", with_session: bool = False) -> None:
        self.size = size
        self.neighbor = torch.full((0, size), -1, dtype=torch.int32, device=device)
        self.time_ms = torch.zeros((0, size), dtype=torch.int64, device=device)
        self.kind = torch.zeros((0, size), dtype=torch.int8, device=device)
        self.weight = torch.zeros((0, size), dtype=torch.float32, device=device)
        self.session = torch.zeros((0, size if with_session else 0), dtype=torch.int32, device=device)
        self.degree = torch.zeros(0, dtype=torch.int64, device=device)
        self._with_session = with_session

    @property
    def capacity(self) -> int:
        return len(self.degree)

    def grow(self, nodes: int) -> None:
        """Makes room for rows 0..nodes-1; doubles, so that growth costs O(1) per node."""
        if nodes <= self.capacity:
            return
        more = max(nodes, 2 * self.capacity, _FIRST_CAPACITY) - self.capacity
        for name, empty in (
            ("neighbor", -1),
            ("time_ms", 0),
            ("kind", 0),
            ("weight", 0),
            ("session", 0),
            ("degree", 0),
        ):
            old: Tensor = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_full((more, *old.shape[1:]), empty)]))

    def insert(
        self, src: Tensor, dst: Tensor, time_ms: Tensor, kind: Tensor, weight: Tensor, session: Tensor | None = None
    ) -> None:
        """Appends edges src -> dst with their features, all [E], oldest first. Rows must be within the capacity."""
        if len(src) == 0:
            return
        src, order = src.sort(stable=True)
        node, count = src.unique_consecutive(return_counts=True)
        rank = torch.arange(len(src), device=src.device) - (count.cumsum(0) - count).repeat_interleave(count)  # [E]
        # Two writes to one slot have no defined winner: of a hot node keep the last K.
        keep = rank >= count.repeat_interleave(count) - self.size
        src, rank, order = src[keep], rank[keep], order[keep]
        slot = (self.degree[src] + rank) % self.size
        self.neighbor[src, slot] = dst[order].to(torch.int32)
        self.time_ms[src, slot] = time_ms[order]
        self.kind[src, slot] = kind[order].to(torch.int8)
        self.weight[src, slot] = weight[order]
        if self._with_session and session is not None:
            self.session[src, slot] = session[order].to(torch.int32)
        self.degree[node] += count

    def latest(self, rows: Tensor, n: int | None = None) -> Neighbors:
        """The newest n (default K) edges of `rows` [B], oldest first, padded on the left."""
        n = self.size if n is None else min(n, self.size)
        back = torch.arange(n, 0, -1, device=rows.device)  # [n] edges back from the next slot
        slot = (self.degree[rows, None] - back) % self.size  # [B, n]; unfilled slots hold -1
        at = (rows[:, None], slot)
        neighbor = self.neighbor[at].to(torch.int64)
        session = self.session[at] if self._with_session else torch.zeros_like(neighbor, dtype=torch.int32)
        return Neighbors(neighbor, self.time_ms[at], self.kind[at].to(torch.int64), self.weight[at], session)

    def clone(self) -> Ring:
        """A copy that later inserts don't touch."""
        copy = Ring(self.size, with_session=self._with_session)
        for name in ("neighbor", "time_ms", "kind", "weight", "session", "degree"):
            setattr(copy, name, getattr(self, name).clone())
        return copy
