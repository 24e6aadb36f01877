"""The most recent edges of every node, in ring buffers made of small blocks.

A node owns as many blocks as its edges fill, up to K edges; then its oldest are overwritten. So memory follows the
edges there are, not the nodes there could be, and an edge costs O(1) whatever its node's past.

Shapes: N nodes, K edges kept per node, S slots, E edges in a batch, B nodes asked for, n of their edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.state.table import Table, put, take

_BLOCK_BITS = 3
_BLOCK = 1 << _BLOCK_BITS  # slots; on average half a block of each node is empty


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

    def select(self, index: Tensor) -> Neighbors:
        """The nodes at `index` [A] of these B."""
        return Neighbors(*(column[index] for column in self.columns()))

    def arranged(self, order: Tensor) -> Neighbors:
        """The edges of each node in another `order` [B, m], positions in 0..n-1."""
        return Neighbors(*(column.gather(1, order) for column in self.columns()))

    def columns(self) -> tuple[Tensor, ...]:
        return self.row, self.time_ms, self.kind, self.weight, self.session


@dataclass(frozen=True)
class Groups:
    """E events grouped by node, each group in the events' order.

    Attributes:
        order: [E] position of each event in the batch.
        row: [E] its node, rising.
        node: [G] the distinct nodes.
        count: [G] events of each.
        group: [E] position of the event's node in `node`.
        rank: [E] 0 for the first event of its node, 1 for the next.
        last: [G] place of each node's last event among the E.
    """

    order: Tensor
    row: Tensor
    node: Tensor
    count: Tensor
    group: Tensor
    rank: Tensor
    last: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Groups:
        """Groups `rows` [E] int64."""
        place = torch.arange(len(rows), device=rows.device)
        if rows.device.type == "cpu":
            # Row and place in one number: then an unstable sort, which is many times faster, is stable.
            bits = len(rows).bit_length()
            both = torch.from_numpy(np.sort(((rows << bits) | place).numpy()))
            row, order = both >> bits, both & ((1 << bits) - 1)
        else:
            row, order = rows.sort(stable=True)
        node, group, count = row.unique_consecutive(return_inverse=True, return_counts=True)
        end = count.cumsum(0)
        return cls(order, row, node, count, group, place - take(end - count, group), end - 1)

    def arranged(self, column: Tensor) -> Tensor:
        """[E] a column of the batch in the order of the groups."""
        return take(column, self.order)

    def ungrouped(self, column: Tensor) -> Tensor:
        """[E] what is in the order of the groups, in the order of the batch."""
        return put(torch.empty_like(column), self.order, column)


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
        src: Tensor | Groups,
        dst: Tensor,
        time_ms: Tensor,
        kind: Tensor,
        weight: Tensor,
        session: Tensor | None = None,
    ) -> None:
        """Appends edges src -> dst with their features, all [E], oldest first; `src` may come grouped."""
        self.append(src, dst, edge_words(time_ms, kind, weight, session))

    def append(self, src: Tensor | Groups, dst: Tensor, words: Tensor) -> None:
        """`insert` with the features [E, 2] as `edge_words` makes them."""
        if len(dst) == 0:
            return
        group = src if isinstance(src, Groups) else Groups.of(src)
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

    def naming(self, rows: Tensor) -> Tensor:
        """[R] int64 the nodes with an edge to any of `rows`, found by a scan of all slots in use."""
        neighbor = self.neighbor.data[: self.blocks * _BLOCK]
        if len(rows) == 0 or len(neighbor) == 0:
            return rows.new_zeros(0)
        mark = torch.zeros(max(int(neighbor.max()), int(rows.max()) + 1) + 1, dtype=torch.bool, device=rows.device)
        mark[rows + 1] = True
        blocks = mark[neighbor.to(torch.int64)].view(-1, _BLOCK).any(dim=1).nonzero().squeeze(1)
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
