"""Gathers what may be recommended: index hits, the user's past, what lately followed its last items, what is popular.

The engine and the trainer share it, so that the ranker learns from the lists that it will order.

Shapes: B users, k index hits of each, K remembered events, S latest items, n next items of each, P popular items,
C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.state.graph import LiveGraph
from engine.state.ring import Neighbors

# One bit per source, 1 << (number of the source in the protocol - 1).
INDEX_BIT, HISTORY_BIT, NEIGHBOR_BIT, POPULAR_BIT, FRIEND_BIT, ENTITY_BIT = 1, 2, 4, 8, 16, 32
_BITS = (INDEX_BIT, HISTORY_BIT, NEIGHBOR_BIT, POPULAR_BIT, FRIEND_BIT, ENTITY_BIT, 0, 0)
_SHIFT = 3  # bits that number a source
_NUMBER = (1 << _SHIFT) - 1
_NOTHING = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Candidates:
    """What may be recommended to B users, each item once.

    Attributes:
        item: [B, C] int64 rows in rising order, padded on the right with -1; C is the longest list's length.
        source: [B, C] int64 bits of the sources that proposed the item, 0 where there is none.
        following: [B, S * n] int64 items that lately followed the user's last S items, -1 where none.
    """

    item: Tensor
    source: Tensor
    following: Tensor


def gather_candidates(
    graph: LiveGraph,
    history: Neighbors,
    index: Tensor,
    popular: Tensor,
    sources: int,
    related: Sequence[Tensor] = (),
) -> Candidates:
    """Collects and deduplicates candidates.

    Args:
        graph: as of now.
        history: [B, K] the users' remembered events, `graph.user_items.latest(users)`.
        index: [B, k] int64 item rows near the user's query, -1 where there are fewer.
        popular: [P] int64 the most popular item rows.
        sources: S, the latest events whose next items are proposed.
        related: [B, n] int64 each, -1 where there are fewer: items of friends, then items that share an entity with the
            latest. Where they are not given, nobody has relations.
    """
    following = _following(graph, history, sources)
    lists = (index, history.row, following, popular.expand(len(index), -1), *related)
    # One key holds the item and the source, so that one sort brings the copies of an item together.
    keys = torch.cat([torch.where(rows < 0, _NOTHING, (rows << _SHIFT) + at) for at, rows in enumerate(lists)], dim=1)
    keys = keys.sort(dim=1).values  # [B, all]
    present = keys != _NOTHING
    item = keys >> _SHIFT
    first_of_item = present.clone()
    first_of_item[:, 1:] &= item[:, 1:] != item[:, :-1]
    first_of_pair = present.clone()
    first_of_pair[:, 1:] &= keys[:, 1:] != keys[:, :-1]
    bit = torch.where(
        first_of_pair,
        torch.tensor(_BITS, device=keys.device)[keys & _NUMBER],
        0,
    )
    slot = (first_of_item.cumsum(1) - 1).clamp_min(0)  # [B, all] the place of each entry's item
    width = int(slot[:, -1].max()) + 1 if slot.numel() else 0
    source = torch.zeros_like(keys).scatter_add_(1, slot, bit)[:, :width]
    # Copies of an item write the same row; padding comes last and must not overwrite, hence the maximum.
    rows = torch.full_like(keys, -1).scatter_reduce_(1, slot, torch.where(present, item, -1), "amax")[:, :width]
    return Candidates(rows, source, following)


def _following(graph: LiveGraph, history: Neighbors, sources: int) -> Tensor:
    """[B, S * n] the next items of each user's last S items."""
    last = history.row[:, history.row.shape[1] - min(sources, history.row.shape[1]) :]  # [B, S]
    following = graph.item_next.latest(last.clamp_min(0).reshape(-1)).row.view(
        *last.shape, graph.item_next.size
    )  # [B, S, n]
    return following.masked_fill(last[..., None] < 0, -1).flatten(1)
