"""Gathers what may be recommended: index hits, the user's past, what lately followed its last items, what is popular.

The engine and the trainer share it, so that the ranker learns from the lists that it will order.

Shapes: B users, k index hits of each, K remembered events, S latest items, n next items of each, P popular items,
C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """

    item: Longs
    source: Longs


@dataclass(frozen=True)
class Popular:
    """The most popular rows [P], and how many of them each user is proposed, `count` [B]."""

    row: Longs
    count: Longs


@dataclass(frozen=True)
class Others:
    """Items that other sources propose to B users.

    Attributes:
        row: [B, n] -1 where there are fewer.
        source: [n] bit of the source that each column is of.
    """

    row: Longs
    source: Longs

    @classmethod
    def none(cls, users: int) -> Others:
        """Nothing for anybody."""
        return cls(np.zeros((users, 0), np.int64), np.zeros(0, np.int64))


def gather_candidates(history: Longs, index: Longs, following: Longs, popular: Popular, others: Others) -> Candidates:
    """Collects and deduplicates candidates.

    Args:
        history: [B, K] rows of the users' remembered events, -1 where there is none.
        index: [B, k] item rows near the user's query, -1 where there are fewer.
        following: [B, S * n] what lately followed the users' last S items, see `following_of`.
    """
    return Candidates(*_unite(index, history, following, popular.row, popular.count, others.row, others.source))


@compiled("i8(i8[:], i8, i8[::1], i8)")
def _add_keys(rows: Longs, number: int, key: Longs, n: int) -> int:
    """Writes the keys of those `rows` [..] that are there behind the first n of `key`; returns how many it has then.

    Args:
        number: of the source that proposes them, from 0 on.
    """
    for row in rows:
        if row >= 0:
            key[n] = (row << _SHIFT) + number
            n += 1
    return n


@compiled("Tuple((i8[:,::1], i8[:,::1]))(i8[:,:], i8[:,:], i8[:,:], i8[:], i8[:], i8[:,:], i8[:])")
def _unite(
    index: Longs,
    history: Longs,
    following: Longs,
    popular: Longs,
    count: Longs,
    others: Longs,
    bit: Longs,
) -> tuple[Longs, Longs]:
    """The distinct rows of all sources in rising order, and the bits of the sources of each, [B, C].

    One key holds item and source, so that the copies of an item come together once the keys are sorted.
    """
    users = len(index)
    most = index.shape[1] + history.shape[1] + following.shape[1] + len(popular) + others.shape[1]
    key = np.empty(most, np.int64)
    item, source = np.full((users, most), -1), np.zeros((users, most), np.int64)
    longest = 0
    for b in range(users):
        n = 0
        n = _add_keys(index[b], 0, key, n)
        n = _add_keys(history[b], 1, key, n)
        n = _add_keys(following[b], 2, key, n)
        n = _add_keys(popular[: count[b]], 3, key, n)
        for j in range(others.shape[1]):
            if others[b, j] >= 0:
                number = 0
                while (1 << number) < bit[j]:
                    number += 1
                key[n] = (others[b, j] << _SHIFT) + number
                n += 1
        key[:n].sort()
        width = 0
        for j in range(n):
            row = key[j] >> _SHIFT
            if width == 0 or item[b, width - 1] != row:
                item[b, width] = row
                width += 1
            source[b, width - 1] |= 1 << (key[j] & _NUMBER)
        longest = max(longest, width)
    return item[:, :longest].copy(), source[:, :longest].copy()


def following_of(graph: LiveGraph, history: Neighbors, sources: int, asked_ms: Longs | None) -> Longs:
    """[B, S * n] the next items of each user's last S items, -1 where none; arguments as of `edges_around`."""
    last = history.row.numpy()[:, history.row.shape[1] - min(sources, history.row.shape[1]) :]  # [B, S]
    following = edges_around(graph.item_next, last, asked_ms)  # [B, S, n]
    return np.where(last[..., None] < 0, -1, following).reshape(len(last), -1)
