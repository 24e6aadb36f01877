"""Gathers what may be recommended: index hits, the user's past, what lately followed its last items, what is popular.

The engine and the trainer share it, so that the ranker learns from the lists that it will order.

Shapes: B users, k index hits of each, K remembered events, S latest items, n next items of each, P popular items,
C candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.features.live import Askers, Rings
from engine.features.votes import Voters, edges_around
from engine.kernel_cache import record
from engine.state.kernels import compiled

# One bit per source, 1 << (number of the source in the protocol - 1).
INDEX_BIT, HISTORY_BIT, NEIGHBOR_BIT, POPULAR_BIT, FRIEND_BIT, ENTITY_BIT, BACKFILL_BIT = 1, 2, 4, 8, 16, 32, 64
_SHIFT = 3  # bits that number a source
_NUMBER = (1 << _SHIFT) - 1

Longs = NDArray[np.int64]


@record("i8[:,::1]", "i8[::1]")
class Others(NamedTuple):
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


@compiled("Tuple((i8[:,::1], i8[:,::1]))(i8[:,:], i8[:,:], i8[:,:], i8[:], i8[:], Others)")
def unite(
    index: Longs, history: Longs, following: Longs, popular: Longs, count: Longs, others: Others
) -> tuple[Longs, Longs]:
    """The distinct rows [B, C] of all sources in rising order, -1 behind the last, and the bits of the sources of each.

    One key holds item and source, so that the copies of an item come together once the keys are sorted.

    Args:
        index: [B, k] rows near the user's query, -1 where there are fewer.
        history: [B, K] rows of the users' remembered events, -1 where there is none.
        following: [B, S * n] what lately followed the users' last S items, see `following_of`.
        popular: [P] the most popular rows.
        count: [B] how many of them each user is proposed.
    """
    users = len(index)
    most = index.shape[1] + history.shape[1] + following.shape[1] + len(popular) + others.row.shape[1]
    key = np.empty(most, np.int64)
    item, source = np.full((users, most), -1), np.zeros((users, most), np.int64)
    longest = 0
    for b in range(users):
        n = 0
        n = _add_keys(index[b], 0, key, n)
        n = _add_keys(history[b], 1, key, n)
        n = _add_keys(following[b], 2, key, n)
        n = _add_keys(popular[: count[b]], 3, key, n)
        for j in range(others.row.shape[1]):
            if others.row[b, j] >= 0:
                number = 0
                while (1 << number) < others.source[j]:
                    number += 1
                key[n] = (others.row[b, j] << _SHIFT) + number
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


@compiled("i8[:,::1](Voters, Askers, Rings, i8)")
def following_of(voters: Voters, askers: Askers, rings: Rings, sources: int) -> Longs:
    """[B, S * n] the next items of each user's last S items, -1 where none; those that `voters` know are not read."""
    users, events = askers.row.shape
    read, known = voters.following, voters.source.shape[1]
    if sources > known:
        source = askers.row[:, max(0, events - sources) :].copy()
        read, known = edges_around(source, askers.asked_ms, rings.item_next, rings.next), source.shape[1]
        for b in range(users):
            for s in range(known):
                if source[b, s] < 0:
                    read[b, s] = -1
    first = max(0, known - sources)
    return read[:, first:].copy().reshape(users, (known - first) * read.shape[2])
