"""Gathers what may be recommended: index hits, the user's past, what lately followed its last items, what is popular.

The engine and the trainer share it, so that the ranker learns from the lists that it will order.

Shapes: B users, k index hits of each, K remembered events, S latest items, n next items of each, P popular items,
C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.state.graph import LiveGraph, edges_around
from engine.state.kernels import compiled
from engine.state.ring import Neighbors

# One bit per source, 1 << (number of the source in the protocol - 1).
INDEX_BIT, HISTORY_BIT, NEIGHBOR_BIT, POPULAR_BIT, FRIEND_BIT, ENTITY_BIT, BACKFILL_BIT = 1, 2, 4, 8, 16, 32, 64
_SHIFT = 3  # bits that number a source
_NUMBER = (1 << _SHIFT) - 1

Longs = NDArray[np.int64]


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
    following: Tensor | None = None,
    asked_ms: Longs | None = None,
) -> Candidates:
    """Collects and deduplicates candidates.

    Args:
        graph: as of now.
        history: [B, K] the users' remembered events, `graph.user_items.latest(users)`.
        index: [B, k] int64 item rows near the user's query, -1 where there are fewer.
        popular: [P] int64 the most popular item rows; or [B, P] of each user, -1 where there are fewer.
        sources: S, the latest events whose next items are proposed.
        related: [B, n] int64 each, -1 where there are fewer: items of friends, then items that share an entity with the
            latest, then any others that fill up a list. Where they are not given, there are none.
        following: [B, at least S, n] the next items of the latest events where they were read before.
        asked_ms: [B] time of each question, where that is in the past; see `edges_around`.
    """
    if following is None:
        following = _following(graph, history, sources, asked_ms)
    else:
        following = following[:, max(0, following.shape[1] - sources) :].flatten(1)
    lists = [one.numpy() for one in (index, history.row, following, popular, *related)]
    rows = np.concatenate([np.broadcast_to(one, (len(index), one.shape[-1])) for one in lists], axis=1)  # [B, all]
    number = np.repeat(np.arange(len(lists)), [one.shape[-1] for one in lists])
    item, source = np.full_like(rows, -1), np.zeros_like(rows)
    width = _unite(rows, number, item, source)
    return Candidates(torch.from_numpy(item[:, :width]), torch.from_numpy(source[:, :width]), following)


@compiled("i8(i8[:,::1], i8[::1], i8[:,::1], i8[:,::1])")
def _unite(rows: Longs, number: Longs, item: Longs, source: Longs) -> int:
    """Fills `item` with the distinct of `rows` [B, all] in rising order, and `source` with the bits of their columns.

    Args:
        number: [all] of the source that a column is of.

    Returns:
        Length of the longest list.
    """
    longest = 0
    key = np.empty(rows.shape[1], np.int64)
    for b in range(len(rows)):
        count = 0
        for j in range(rows.shape[1]):
            if rows[b, j] >= 0:
                key[count] = (rows[b, j] << _SHIFT) + number[j]
                count += 1
        key[:count].sort()  # one key holds item and source, so that the copies of an item come together
        width = 0
        for j in range(count):
            row = key[j] >> _SHIFT
            if width == 0 or item[b, width - 1] != row:
                item[b, width] = row
                width += 1
            source[b, width - 1] |= 1 << (key[j] & _NUMBER)
        longest = max(longest, width)
    return longest


def _following(graph: LiveGraph, history: Neighbors, sources: int, asked_ms: Longs | None) -> Tensor:
    """[B, S * n] the next items of each user's last S items."""
    last = history.row[:, history.row.shape[1] - min(sources, history.row.shape[1]) :]  # [B, S]
    following = torch.from_numpy(edges_around(graph.item_next, last.numpy(), asked_ms))  # [B, S, n]
    return following.masked_fill(last[..., None] < 0, -1).flatten(1)
