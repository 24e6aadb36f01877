"""The rings of a slice at rest, laid out anew: for another number of edges per node, or under other row numbers.

The state goes on from a ring as though it had always had the new size: an edge keeps its number in the order in which
its node got them, and that number decides its slot. See `engine.state.ring` for the layout.

Shapes: N nodes, S slots in use, E edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.state.kernels import BLOCK
from engine.state.slice import SavedSlice

Longs = NDArray[np.int64]

# Of each ring: whose it is, the setting that is its size, that of its kinds of edges, and what these lead to.
RINGS = {
    "user_items": ("users", "state.history", "events.kinds", "items"),
    "item_users": ("items", "state.neighbors", "events.kinds", "users"),
    "item_next": ("items", "state.neighbors", "events.kinds", "items"),
    "user_users": ("users", "state.relations", "events.relations", "targets"),
    "item_entities": ("items", "state.relations", "events.relations", "targets"),
    "entity_items": ("targets", "state.relations", "events.relations", "items"),
}


@dataclass(frozen=True)
class RingChange:
    """The change that a ring goes through.

    Attributes:
        was, now: edges per node.
        keep: [n] rows of the nodes that stay, in their new order; None: all as they are.
        row_of: [M] new row of what an edge leads to by its old one, -1 where that is gone; None: as it is.
        kinds: [K] new number of each kind of edge, -1 for one that no edge has; None: as they are.
        renewed: whether a node's edges are written anew at each change, so that they always begin in the first slot.
    """

    was: int
    now: int
    keep: Longs | None = None
    row_of: Longs | None = None
    kinds: Longs | None = None
    renewed: bool = False

    @property
    def nothing(self) -> bool:
        return self.was == self.now and self.keep is None and self.row_of is None and self.kinds is None


def changed_ring(saved: SavedSlice, name: str, change: RingChange) -> SavedSlice:
    """The slice with the ring `name` as `change` says. The newest edges stay where there is room for fewer."""
    if change.nothing:
        return saved
    degree, block, neighbor, edge = (
        saved.tables[f"{name}.{table}"].numpy() for table in ("degree", "block", "neighbor", "edge")
    )
    if change.keep is not None:
        block = block.reshape(len(degree), blocks_of(change.was))[change.keep].reshape(-1)
        degree = degree[change.keep]
    node, slot, place = _slots_in_use(block, neighbor, change)
    # Step 1. The number of each edge in the order of its node's, and which of them there is room for.
    end = degree[node]
    number = end - 1 - (end - 1 - slot) % change.was
    stays = (number >= 0) & (number >= end - change.now)
    if change.renewed:
        number = number - np.maximum(end - change.now, 0)
        degree = np.minimum(degree, change.now)
    node, number, place = node[stays], number[stays], place[stays]
    # Step 2. What the edges say, in the new numbers.
    leads_to, words = neighbor[place].astype(np.int64) - 1, edge[place].copy()
    if change.kinds is not None:
        words[:, 0] = (words[:, 0] & ~np.int64(0xFF)) | change.kinds[words[:, 0] & 0xFF]
    if change.row_of is not None:
        leads_to = change.row_of[leads_to]
        node, number, words, leads_to = (column[leads_to >= 0] for column in (node, number, words, leads_to))
    # Step 3. A block for each stretch of slots that has an edge.
    slot, width = number % change.now, blocks_of(change.now)
    places, block_of = np.unique(node * width + slot // BLOCK, return_inverse=True)
    tables, blocks = _laid_out(places, width, len(degree)), len(places) + 1
    at = (block_of + 1) * BLOCK + slot % BLOCK
    neighbor, edge = np.zeros(blocks * BLOCK, np.int32), np.zeros((blocks * BLOCK, 2), np.int64)
    neighbor[at] = leads_to + 1
    edge[at] = words
    tables |= {"degree": torch.from_numpy(degree), "neighbor": torch.from_numpy(neighbor)}
    tables |= {"edge": torch.from_numpy(edge)}
    return replace(
        saved,
        tables={**saved.tables, **{f"{name}.{table}": values for table, values in tables.items()}},
        lists={**saved.lists, f"{name}.blocks": [blocks], f"{name}.free": []},
    )


def blocks_of(size: int) -> int:
    """How many blocks the edges of a full node fill."""
    return -(-size // BLOCK)


def _slots_in_use(block: NDArray[np.int32], neighbor: NDArray[np.int32], change: RingChange) -> tuple[Longs, ...]:
    """[S] node, slot and place in the pool of each edge there is."""
    width = blocks_of(change.was)
    owned = block.nonzero()[0]
    place = (block[owned].astype(np.int64)[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
    slot = ((owned % width)[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
    node = np.repeat(owned // width, BLOCK)
    used = (neighbor[place] > 0) & (slot < change.was)
    return node[used], slot[used], place[used]


def _laid_out(places: Longs, width: int, nodes: int) -> dict[str, Tensor]:
    """The tables that say which block is where, where those at `places` are taken in their order."""
    block, owner = np.zeros(nodes * width, np.int32), np.zeros(len(places) + 1, np.int32)
    block[places] = np.arange(1, len(places) + 1)
    owner[1:] = places // width
    return {"block": torch.from_numpy(block), "owner": torch.from_numpy(owner)}


def kinds_held(saved: SavedSlice, name: str) -> set[int]:
    """The numbers of the kinds that the edges of a ring have."""
    neighbor, edge = saved.tables[f"{name}.neighbor"].numpy(), saved.tables[f"{name}.edge"].numpy()
    return set(np.unique(edge[neighbor > 0, 0] & 0xFF).tolist())


def kinds_by_name(was: Mapping[str, float], now: Mapping[str, float]) -> Longs | None:
    """[K] the number that each kind has now, -1 where it is gone; None where all have the number that they had."""
    numbers = {name: number for number, name in enumerate(now)}
    found = np.array([numbers.get(name, -1) for name in was], np.int64)
    return None if (found == np.arange(len(found))).all() else found
