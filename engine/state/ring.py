"""The most recent edges of every node, in ring buffers made of small blocks.

A node owns as many blocks as its edges fill, up to K edges; then its oldest are overwritten. So memory follows the
edges there are, not the nodes there could be, and an edge costs O(1) whatever its node's past.

Shapes: N nodes, K edges kept per node, S slots, E edges in a batch, B nodes asked for, n of their edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernel_cache import record
from engine.state.addresses import place_of
from engine.state.groups import Groups
from engine.state.kernels import BLOCK as _BLOCK
from engine.state.kernels import BLOCK_BITS as _BLOCK_BITS
from engine.state.kernels import RingArrays, append_edges, find_naming
from engine.state.merged_kernels import latest_of_slices
from engine.state.table import Table, take

NO_INTS = np.zeros(0, dtype=np.int32)
NO_LONGS = np.zeros(0, dtype=np.int64)


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

    def earlier(self, count: Tensor) -> Neighbors:
        """Without the newest `count` [B] of each, and as wide as before."""
        at = torch.arange(self.row.shape[1]) - count[:, None]
        there = at >= 0
        row, *others = self.arranged(at.clamp_min(0)).columns()
        return Neighbors(row.where(there, -1), *(column * there for column in others))

    def before(self, time_ms: Tensor) -> Neighbors:
        """Only what was earlier than `time_ms` [B]; what was not leaves its place empty."""
        there = self.time_ms < time_ms[:, None]
        return Neighbors(self.row.where(there, -1), *(column * there for column in self.columns()[1:]))

    def select(self, index: Tensor | int) -> Neighbors:
        """The nodes at `index` [A] of these B; or, of P sets, one."""
        return Neighbors(*(column[index] for column in self.columns()))

    def arranged(self, order: Tensor) -> Neighbors:
        """The edges of each node in another `order` [B, m], positions in 0..n-1."""
        return Neighbors(*(column.gather(1, order) for column in self.columns()))

    def columns(self) -> tuple[Tensor, ...]:
        return self.row, self.time_ms, self.kind, self.weight, self.session

    def to(self, device: torch.device) -> Neighbors:
        """The same on another device; itself where it lies there."""
        return Neighbors(*(column.to(device) for column in self.columns()))

    def arrays(self) -> History:
        """The columns, in the same memory."""
        return History(
            self.row.numpy(), self.time_ms.numpy(), self.kind.numpy(), self.weight.numpy(), self.session.numpy()
        )

    @classmethod
    def of(cls, arrays: History) -> Neighbors:
        """The same memory as tensors."""
        return cls(*map(torch.from_numpy, arrays))

    @classmethod
    def none(cls, *shape: int) -> Neighbors:
        """[B, n] of nothing, or [P, B, n] of it."""
        return cls.of(no_edges(*shape))


@record("i8[:,::1]", "i8[:,::1]", "i8[:,::1]", "f4[:,::1]", "i4[:,::1]")
class History(NamedTuple):
    """`Neighbors` as arrays: the latest events of B users, or the latest edges of B nodes.

    A list needs no tensors, and a call into their library costs as much as many events.
    """

    row: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    kind: NDArray[np.int64]
    weight: NDArray[np.float32]
    session: NDArray[np.int32]

    def select(self, at: Sequence[int] | NDArray[np.int64] | slice) -> History:
        """The nodes at `at` [A] of these B."""
        return History(self.row[at], self.time_ms[at], self.kind[at], self.weight[at], self.session[at])

    def put(self, at: int | Sequence[int], others: History) -> None:
        """Takes over others for the nodes at `at`."""
        columns: tuple[NDArray[Any], ...] = self
        for column, values in zip(columns, others, strict=True):
            column[at] = values


def no_edges(*shape: int) -> History:
    """[B, n] of nothing, or [P, B, n] of it, to be filled."""
    return History(
        np.full(shape, -1), np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.float32),
        np.zeros(shape, np.int32),
    )  # fmt: skip


class Ring:
    """Ring buffers over the edges of a temporal graph.

    Args:
        nodes: N, how many rows there may be.
        size: K.
        generation: [M] int32 of the rows that edges lead to, where those rows can be given to another node: an edge is
            gone once its neighbor's generation has changed. It is read, never written, here.

    Attributes:
        width: blocks of a full node.
        degree: [N] int64 edges ever inserted; `degree % K` is the next slot.
    """

    def __init__(self, nodes: int, size: int, *, generation: Table | None = None) -> None:
        self.size = size
        self.width = -(-size // _BLOCK)
        blocks = nodes * self.width + 1  # block 0 stands for none and stays empty
        self.degree = Table(nodes, dtype=torch.int64)
        self.block = Table(nodes * self.width, dtype=torch.int32)  # 0: not there yet
        self.owner = Table(blocks, dtype=torch.int32)  # node of each block
        self.neighbor = Table(blocks * _BLOCK, dtype=torch.int32)  # row + 1, 0 where a slot is empty
        # Two words: time_ms << 8 | kind; float32 weight, session (16 bits), generation of the neighbor (16 bits).
        self.edge = Table(blocks * _BLOCK, (2,), dtype=torch.int64)
        self.blocks = 1  # those ever used, block 0 included
        self._free = NO_LONGS
        self._generation = generation
        self._rooms: NDArray[np.int64] | None = None

    @property
    def free(self) -> NDArray[np.int64]:
        """Blocks that were used and are not now."""
        return self._free

    def restore(self, blocks: int, free: NDArray[np.int64]) -> None:
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
        if not self.loose:
            self._append_grouped(src, dst, words)
            return
        self.took(append_edges(self.arrays(), src.numpy(), dst.numpy(), words.numpy()))

    @property
    def loose(self) -> bool:
        """Whether no copy of any of the tables is being made."""
        return all(table.loose for table in self._tables())

    def arrays(self) -> RingArrays:
        """What `append_edges` takes of a ring."""
        return (
            self.degree.array, self.block.array, self.owner.array, self.neighbor.array, self.edge.array,
            self.size, self.width, self.blocks, self._free, self._generations(),
        )  # fmt: skip

    def took(self, blocks: int) -> None:
        """Notes that so many blocks are in use now, free ones before new ones."""
        reused = min(blocks, len(self._free))
        if reused:
            self._free = self._free[: len(self._free) - reused]
        self.blocks += blocks - reused

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
        found = no_edges(len(rows), n)
        latest_of_slices(self.rooms(), rows.numpy(), False, *found)
        return Neighbors.of(found)

    def rooms(self) -> NDArray[np.int64]:
        """See `Edges`: this ring alone."""
        if self._rooms is None:
            self._rooms = np.array([self.room(NO_INTS, NO_LONGS, 0)])
        return self._rooms

    def room(self, inward: NDArray[np.int32], outward: NDArray[np.int64], first: int) -> tuple[int, ...]:
        """The ring as `latest_of_slices` reads it, which also says what the arguments are."""
        tables = (self.degree.array, self.block.array, self.neighbor.array, self.edge.array, self._generations())
        places = (number for array in (*tables, inward, outward) for number in place_of(array))
        return (*places, self.size, self.width, first)

    def naming(self, rows: Tensor) -> Tensor:
        """[R] int64 the nodes with an edge to any of `rows`, found by a scan of all slots in use."""
        if len(rows) == 0:
            return rows.new_zeros(0)
        mark = torch.zeros(int(rows.max()) + 2, dtype=torch.bool)  # by row + 1
        mark[rows + 1] = True
        found = np.empty(self.blocks, np.int64)
        count = find_naming(self.neighbor.array, mark.numpy(), self.blocks, self.owner.array, found)
        return torch.from_numpy(np.unique(found[:count]))

    def scrub(self, row: int) -> None:
        """Removes every edge that leads to `row`, found by a scan of all slots in use."""
        at = (self.neighbor.data[: self.blocks * _BLOCK] == row + 1).nonzero().squeeze(1)
        self.neighbor.clear(at)
        self.edge.clear(at)

    def clear(self, rows: Tensor) -> None:
        """Empties the rings of distinct `rows` [R] and takes their blocks back."""
        places = (rows[:, None] * self.width + torch.arange(self.width)).flatten()
        blocks = self.block.get(places).to(torch.int64)
        blocks = blocks[blocks > 0]
        slots = (blocks[:, None] * _BLOCK + torch.arange(_BLOCK)).flatten()
        self.neighbor.clear(slots)
        self.edge.clear(slots)
        self.owner.clear(blocks)
        self.block.clear(places)
        self.degree.clear(rows)
        self._free = np.concatenate([self._free, blocks.numpy()])

    def used(self, nodes: int) -> dict[str, tuple[Table, int]]:
        """Every table by name with how many of its rows matter, where rows 0..nodes-1 are in use."""
        slots = self.blocks * _BLOCK
        return {
            "degree": (self.degree, nodes),
            "block": (self.block, nodes * self.width),
            "owner": (self.owner, self.blocks),
            "neighbor": (self.neighbor, slots),
            "edge": (self.edge, slots),
        }

    def _tables(self) -> tuple[Table, ...]:
        return self.degree, self.block, self.owner, self.neighbor, self.edge

    def _generations(self) -> NDArray[np.int32]:
        return NO_INTS if self._generation is None else self._generation.array

    def _slots(self, node: Tensor, slot: Tensor) -> Tensor:
        """[E] places in the pool of `slot` of `node`, with a block behind each."""
        place = node * self.width + (slot >> _BLOCK_BITS)
        block = self.block.get(place).to(torch.int64)
        missing = (block == 0).nonzero().squeeze(1)
        if len(missing):
            places = place[missing].unique()
            blocks = self._allocate(len(places))
            self.block.put(places, blocks.to(torch.int32))
            self.owner.put(blocks, (places // self.width).to(torch.int32))
            block[missing] = self.block.get(place[missing]).to(torch.int64)
        return (block << _BLOCK_BITS) + (slot & (_BLOCK - 1))

    def _allocate(self, count: int) -> Tensor:
        """[count] blocks, free ones before new ones."""
        reused = min(count, len(self._free))
        cut = len(self._free) - reused
        old, new = self._free[cut:], np.arange(self.blocks, self.blocks + count - reused)
        self.took(count)
        return torch.from_numpy(np.concatenate([old, new]))


def edge_words(time_ms: Tensor, kind: Tensor, weight: Tensor, session: Tensor | None = None) -> Tensor:
    """[E, 2] int64 the features of E edges as a ring keeps them, without the generations of their neighbors."""
    words = torch.zeros((len(time_ms), 2), dtype=torch.int64)
    halves = words.view(torch.int32)
    words[:, 0] = (time_ms << 8) | kind
    halves[:, 2] = weight.to(torch.float32).view(torch.int32)
    if session is not None:
        halves[:, 3] = session.to(torch.int32) << 16
    return words
