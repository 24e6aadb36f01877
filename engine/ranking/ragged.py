"""Rows of several queries, of each as many as there are, as compiled code takes them.

Shapes: B queries, n rows of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]

_NOTHING = np.zeros(0, np.int64)


class Ragged(NamedTuple):
    """Rows of all queries, one behind the other: those of query b are rows[first[b] : first[b + 1]]."""

    rows: Longs
    first: Longs

    @classmethod
    def of(cls, lists: Sequence[Sequence[int] | Longs]) -> Ragged:
        """Of B lists."""
        lengths = [len(one) for one in lists]
        first = np.zeros(len(lists) + 1, np.int64)
        if not any(lengths):
            return cls(_NOTHING, first)
        np.cumsum(lengths, out=first[1:])
        return cls(np.concatenate([np.asarray(one, np.int64) for one in lists]), first)


def padded(lists: Sequence[Longs]) -> Longs:
    """[B, n] of B lists, -1 behind the end of each."""
    rows = np.full((len(lists), max(map(len, lists), default=0)), -1, np.int64)
    for b, one in enumerate(lists):
        rows[b, : len(one)] = one
    return rows
