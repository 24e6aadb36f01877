"""The most recent edges of every node, in ring buffers made of small blocks.

A node owns as many blocks as its edges fill, up to K edges; then its oldest are overwritten. So memory follows the
edges there are, not the nodes there could be, and an edge costs O(1) whatever its node's past.

Shapes: N nodes, K edges kept per node, S slots, E edges in a batch, B nodes asked for, n of their edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.state.groups import Groups
from engine.state.kernels import BLOCK as _BLOCK
from engine.state.kernels import BLOCK_BITS as _BLOCK_BITS
from engine.state.kernels import append_edges, find_naming, latest_edges
from engine.state.table import Table, take

_NO_INTS = np.zeros(0, dtype=np.int32)
_NO_LONGS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Neighbors:
    """The latest edges of B nodes, oldest first, padded on the left.

    Attributes:
        row: [B, n] int64, -1 where there is no edge.
        time_ms: [B, n] int64 event time, 0 where there is no edge.
        kind: [B, n] int64.
        weight: [B, n] float32.
        session: [B, n] int32 ordinal of the user's session modulo 2**16, 0 where there is no edge or none was given.
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
        return Neighbors(*(column[:, -n:] for column in self.columns()))

    def select(self, index: Tensor | int) -> Neighbors:
        """The nodes at `index` [A] of these B; or, of P sets, one."""
        return Neighbors(*(column[index] for column in self.columns()))

    def arranged(self, order: Tensor) -> Neighbors:
        """The edges of each node in another `order` [B, m], positions in 0..n-1."""
        return Neighbors(*(column.gather(1, order) for column in self.columns()))

    def columns(self) -> tuple[Tensor, ...]:
        return self.row, self.time_ms, self.kind, self.weight, self.session

    @classmethod
    def none(cls, *shape: int) -> Neighbors:
        """[B, n] of nothing, or [P, B, n] of it."""
        zeros = torch.zeros(shape, dtype=torch.int64)
        return cls(zeros - 1, zeros, zeros.clone(), zeros.to(torch.float32), zeros.to(torch.int32))


class Ring:
    """Ring buffers over the edges of a temporal graph.

    Args:
        nodes: N, how many rows there may be.
        size: K.
        generation: [M] int32 of the rows that edges lead to, where those rows can be given to another node: an edge is
            gone once its neighbor's generation has changed. It is read, never written, here.

    Attributes:
        degree: [N] int64 edges ever inserted; `degree % K` is the next slot.
    """

    def __init__(
        self, nodes: int, size: int, *, generation: Table | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.size = size
        self._width = -(-size // _BLOCK)  # blocks of a full node
        blocks = nodes * self._width + 1  # block 0 stands for none and stays empty
        self.degree = Table(nodes, dtype=torch.int64, device=device)
        self.block = Table(nodes * self._width, dtype=torch.int32, device=device)  # 0: not there yet
        self.owner = Table(blocks, dtype=torch.int32, device=device)  # node of each block
        self.neighbor = Table(blocks * _BLOCK, dtype=torch.int32, device=device)  # row + 1, 0 where a slot is empty
        # Two words: time_ms << 8 | kind; float32 weight, session (16 bits), generation of the neighbor (16 bits).
        self.edge = Table(blocks * _BLOCK, (2,), dtype=torch.int64, device=device)
        self.blocks = 1  # those ever used, block 0 included
        self._free = torch.zeros(0, dtype=torch.int64, device=device)
        self._generation = generation

    @property
    def free(self) -> Tensor:
        """Blocks that were used and are not now."""
        return self._free

    def restore(self, blocks: int, free: Tensor) -> None:
        """Takes over the allocation that belongs to tables filled from a snapshot."""
        self.blocks, self._free = blocks, free

    def insert(
        self,
        src: Tensor,
        dst: Tensor,
        time_ms: Tensor,
        kind: Tensor,
        weight: Tensor,
        session: Tensor | None = None,
    ) -> None:
        """Appends edges src -> dst with their features, all [E], oldest first; a `src` of -1 is none."""
        self.append(src, dst, edge_words(time_ms, kind, weight, session))

    def append(self, src: Tensor, dst: Tensor, words: Tensor) -> None:
        """`insert` with the features [E, 2] as `edge_words` makes them."""
        if not all(table.loose for table in self._tables()):
            self._append_grouped(src, dst, words)
            return
        taken = append_edges(
            self.degree.array,
            self.block.array,
            self.owner.array,
            self.neighbor.array,
            self.edge.array,
            self.size,
            self._width,
            self.blocks,
            self._free.numpy(),
            self._generations(),
            src.numpy(),
            dst.numpy(),
            words.numpy(),
        )
        if taken:
            self._allocate(taken)

    def _append_grouped(self, src: Tensor, dst: Tensor, words: Tensor) -> None:
        """`append` for all edges at once, by tensor operations and through `Table.put`."""
        if bool((src < 0).any()):
            there = (src >= 0).nonzero().squeeze(1)
            src, dst, words = take(src, there), take(dst, there), take(words, there)
        if len(dst) == 0:
            return
        group = Groups.of(src)
        degree = self.degree.get(group.node)
        slot = (take(degree, group.group) + group.rank) % self.size
        node, order = group.row, group.order
        if int(group.count.max()) > self.size:
            # Two writes to one slot have no defined winner: of a hot node keep the last K.
            keep = group.rank >= take(group.count, group.group) - self.size
            slot, node, order = slot[keep], node[keep], order[keep]
        at = self._slots(node, slot)
        dst = take(dst, order)
        self.neighbor.put(at, (dst + 1).to(torch.int32))
        words = take(words, order)
        if self._generation is not None:
            words.view(torch.int32)[:, 3] |= self._generation.get(dst) & 0xFFFF
        self.edge.put(at, words)
        self.degree.put(group.node, degree + group.count)

    def latest(self, rows: Tensor, n: int | None = None) -> Neighbors:
        """The newest n (default K) edges of `rows` [B], oldest first, padded on the left."""
        n = self.size if n is None else min(n, self.size)
        if not self.degree.on_cpu:
            return self._latest_gathered(rows, n)
        found = Neighbors.none(len(rows), n)
        self.read(found, rows)
        return found

    def read(
        self,
        found: Neighbors,
        rows: Tensor,
        *,
        inward: Tensor | None = None,
        first: int = 0,
        outward: Tensor | None = None,
    ) -> None:
        """Fills `found` [B, n], which holds nothing yet, with the newest n edges of those of `rows` [B] that are here.

        Rows may be those of other rooms. It reads what lies in a CPU's memory only.

        Args:
            inward: int32, 1 + the row here by row there; None where rows here start at `first` there.
            outward: int64, what an edge leads to in rows there, by row here; None where they start at `first`, too.
        """
        into = [column.numpy() for column in found.columns()]
        latest_edges(
            self.degree.array,
            self.block.array,
            self.neighbor.array,
            self.edge.array,
            self.size,
            self._width,
            self._generations(),
            rows.numpy(),
            _NO_INTS if inward is None else inward.numpy(),
            first,
            len(self.degree),
            _NO_LONGS if outward is None else outward.numpy(),
            *into,
        )

    def naming(self, rows: Tensor) -> Tensor:
        """[R] int64 the nodes with an edge to any of `rows`, found by a scan of all slots in use."""
        if len(rows) == 0:
            return rows.new_zeros(0)
        mark = torch.zeros(int(rows.max()) + 2, dtype=torch.bool, device=rows.device)  # by row + 1
        mark[rows + 1] = True
        if self.neighbor.on_cpu:
            found = np.empty(self.blocks, np.int64)
            count = find_naming(self.neighbor.array, mark.numpy(), self.blocks, self.owner.array, found)
            return torch.from_numpy(np.unique(found[:count]))
        neighbor = self.neighbor.data[: self.blocks * _BLOCK].to(torch.int64)
        named = (neighbor < len(mark)) & mark[neighbor.clamp_max(len(mark) - 1)]
        blocks = named.view(-1, _BLOCK).any(dim=1).nonzero().squeeze(1)
        return self.owner.get(blocks).to(torch.int64).unique()

    def scrub(self, row: int) -> None:
        """Removes every edge that leads to `row`, found by a scan of all slots in use."""
        at = (self.neighbor.data[: self.blocks * _BLOCK] == row + 1).nonzero().squeeze(1)
        self.neighbor.clear(at)
        self.edge.clear(at)

    def clear(self, rows: Tensor) -> None:
        """Empties the rings of distinct `rows` [R] and takes their blocks back."""
        places = (rows[:, None] * self._width + torch.arange(self._width, device=rows.device)).flatten()
        blocks = self.block.get(places).to(torch.int64)
        blocks = blocks[blocks > 0]
        slots = (blocks[:, None] * _BLOCK + torch.arange(_BLOCK, device=rows.device)).flatten()
        self.neighbor.clear(slots)
        self.edge.clear(slots)
        self.owner.clear(blocks)
        self.block.clear(places)
        self.degree.clear(rows)
        self._free = torch.cat([self._free, blocks])

    def used(self, nodes: int) -> dict[str, tuple[Table, int]]:
        """Every table by name with how many of its rows matter, where rows 0..nodes-1 are in use."""
        slots = self.blocks * _BLOCK
        return {
            "degree": (self.degree, nodes),
            "block": (self.block, nodes * self._width),
            "owner": (self.owner, self.blocks),
            "neighbor": (self.neighbor, slots),
            "edge": (self.edge, slots),
        }

    def _tables(self) -> tuple[Table, ...]:
        return self.degree, self.block, self.owner, self.neighbor, self.edge

    def _generations(self) -> NDArray[np.int32]:
        return _NO_INTS if self._generation is None else self._generation.array

    def _latest_gathered(self, rows: Tensor, n: int) -> Neighbors:
        """`latest` for all rows at once, by tensor operations."""
        back = torch.arange(n, 0, -1, device=rows.device)  # [n] edges back from the next slot
        slot = (self.degree.get(rows)[:, None] - back) % self.size  # [B, n]
        block = self.block.get((rows[:, None] * self._width + (slot >> _BLOCK_BITS)).view(-1))
        at = (block.to(torch.int64) << _BLOCK_BITS) + (slot & (_BLOCK - 1)).view(-1)  # slots never filled read as 0
        row = self.neighbor.get(at).to(torch.int64).view(slot.shape) - 1
        words = self.edge.get(at).view(*slot.shape, 2)
        halves = words.view(torch.int32)  # [B, n, 4]
        tag = halves[..., 3]
        if self._generation is not None:
            current = self._generation.get(row.clamp_min(0).view(-1)).view(row.shape)
            row = torch.where((tag & 0xFFFF) == (current & 0xFFFF), row, -1)
        # What is gone, or was never there, reads as zeros.
        there = row >= 0
        when = words[..., 0] * there
        session = ((tag >> 16) & 0xFFFF) * there
        found = Neighbors(row, when >> 8, when & 0xFF, halves[..., 2].view(torch.float32) * there, session)
        return padded_left(found)

    def _slots(self, node: Tensor, slot: Tensor) -> Tensor:
        """[E] places in the pool of `slot` of `node`, with a block behind each."""
        place = node * self._width + (slot >> _BLOCK_BITS)
        block = self.block.get(place).to(torch.int64)
        missing = (block == 0).nonzero().squeeze(1)
        if len(missing):
            places = place[missing].unique()
            blocks = self._allocate(len(places))
            self.block.put(places, blocks.to(torch.int32))
            self.owner.put(blocks, (places // self._width).to(torch.int32))
            block[missing] = self.block.get(place[missing]).to(torch.int64)
        return (block << _BLOCK_BITS) + (slot & (_BLOCK - 1))

    def _allocate(self, count: int) -> Tensor:
        reused = min(count, len(self._free))
        cut = len(self._free) - reused
        old, self._free = self._free[cut:], self._free[:cut]
        new = torch.arange(self.blocks, self.blocks + count - reused, device=old.device)
        self.blocks += len(new)
        return torch.cat([old, new])


def edge_words(time_ms: Tensor, kind: Tensor, weight: Tensor, session: Tensor | None = None) -> Tensor:
    """[E, 2] int64 the features of E edges as a ring keeps them, without the generations of their neighbors."""
    words = torch.zeros((len(time_ms), 2), dtype=torch.int64, device=time_ms.device)
    halves = words.view(torch.int32)
    words[:, 0] = (time_ms << 8) | kind
    halves[:, 2] = weight.to(torch.float32).view(torch.int32)
    if session is not None:
        halves[:, 3] = session.to(torch.int32) << 16
    return words


def padded_left(edges: Neighbors) -> Neighbors:
    """The same edges with those that are gone moved to the left of those that are there."""
    there = edges.mask
    if not bool((there[:, :-1] & ~there[:, 1:]).any()):
        return edges
    return edges.arranged(there.to(torch.int8).argsort(dim=1, stable=True))
