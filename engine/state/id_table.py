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

from engine.state.kernels import find_keys, insert_keys, read_keys, remove_keys
from engine.state.table import reserve

_AT_ONCE = 16_384  # digests made without letting other threads run

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

    Attributes:
        keys: [N, 2] the digest of each row.
    """

    def __init__(self, rows: int) -> None:
        # At most half full, so that a search takes 1.5 looks where it finds something, and 2.5 where not.
        size = 1 << max(4, (2 * rows - 1).bit_length())
        self._slot = reserve(size, (), torch.int32).numpy()  # row + 1, 0 where empty
        self.keys = reserve(rows, (2,), torch.int64).numpy()

    def find(self, keys: Keys) -> tuple[NDArray[np.int64], int]:
        """[E] rows, -1 where there is none, and how many of these there are."""
        rows = np.empty(len(keys), np.int64)
        return rows, find_keys(keys, self._slot, self.keys, rows)

    def read_keys(self, rows: NDArray[np.int64], first: int, keys: Keys) -> None:
        """Fills `keys` [R, 2] with the digests of those of `rows` [R], counted from `first`, that are of this table."""
        read_keys(rows, first, self.keys, keys)

    def insert(self, keys: Keys, rows: NDArray[np.int64]) -> None:
        """Gives distinct digests that are not there yet their rows."""
        insert_keys(keys, rows, self._slot, self.keys)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Takes distinct rows out."""
        remove_keys(rows, self._slot, self.keys)
