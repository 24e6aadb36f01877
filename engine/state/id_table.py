"""Which row each id has, looked up for a whole batch at once.

A hash table with open addressing over 128-bit digests of the ids. Ids are told apart by their digests alone: among a
billion ids, two share one with a probability of 1e-21. A dict of strings takes several times the memory, and three
misses of the cache, one after another, per lookup; here the misses of a batch overlap.

Shapes: N rows, E ids asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from engine.state.kernels import find_keys
from engine.state.table import reserve

_EMPTY, _DELETED = 0, -1
_AT_ONCE = 16_384  # digests made without letting other threads run
_FULL = 0.7  # share of slots in use, deleted ones included, that has the table made anew

Keys = NDArray[np.int64]  # [E, 2]


def digests(ids: Sequence[str]) -> Keys:
    """[E, 2] int64, 128 bits of each id; the same in every process."""
    found = bytearray()  # not bytes, which compiled code would have to treat as read-only
    for first in range(0, len(ids), _AT_ONCE):
        found += b"".join(map(xxhash.xxh3_128_digest, map(str.encode, ids[first : first + _AT_ONCE])))
    return np.frombuffer(found, np.int64).reshape(-1, 2)


class IdTable:
    """Rows by digest.

    Args:
        rows: N, the rows there may be.
    """

    def __init__(self, rows: int) -> None:
        size = 1 << max(4, (2 * rows - 1).bit_length())
        self._mask = size - 1
        self._slot = reserve(size, (), torch.int32).numpy()  # row + 1, _EMPTY or _DELETED
        self._key = reserve(rows, (2,), torch.int64).numpy()  # [N, 2]
        self._place = reserve(rows, (), torch.int64).numpy()  # [N] 1 + slot of a row, 0 where it has none
        self._used = 0  # slots that are not empty

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """[E] rows, -1 where there is none."""
        rows = np.empty(len(keys), np.int64)
        find_keys(keys, self._slot, self._key, rows)
        return rows

    def insert(self, keys: Keys, rows: NDArray[np.int64]) -> None:
        """Gives distinct digests that are not there yet their rows."""
        if self._used + len(rows) > _FULL * len(self._slot):
            self._rebuild()
        self._key[rows] = keys
        self._settle(rows, keys[:, 0] & self._mask)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Takes distinct rows out."""
        self._slot[self._place[rows] - 1] = _DELETED
        self._place[rows] = 0
        self._key[rows] = 0

    def _settle(self, rows: NDArray[np.int64], at: NDArray[np.int64]) -> None:
        """Puts each row into the first free slot from `at` on."""
        while len(rows):
            slot = self._slot.take(at)
            free = np.flatnonzero(slot <= _EMPTY)
            _, first = np.unique(at[free], return_index=True)  # of several rows one gets a slot
            won = free[first]
            self._used += int((slot[won] == _EMPTY).sum())
            self._slot[at[won]] = rows[won] + 1
            self._place[rows[won]] = at[won] + 1
            on = np.ones(len(rows), dtype=bool)
            on[won] = False
            rows, at = rows[on], (at[on] + 1) & self._mask

    def _rebuild(self) -> None:
        """Clears deleted slots away: every row at its home or just behind, in one pass over the rows sorted by home."""
        rows = np.flatnonzero(self._place)
        self._slot[:] = _EMPTY
        home = self._key[rows, 0] & self._mask
        order = np.argsort(home)
        rows, home = rows[order], home[order]
        step = np.arange(len(rows))
        at = np.maximum.accumulate(home - step) + step
        inside = at <= self._mask
        self._slot[at[inside]] = rows[inside] + 1
        self._place[rows[inside]] = at[inside] + 1
        self._used = int(inside.sum())
        self._settle(rows[~inside], at[~inside] & self._mask)
