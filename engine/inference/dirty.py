"""Rows waiting to be recomputed, oldest first, each once."""

from __future__ import annotations

from itertools import islice

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class DirtyRows:
    """An ordered set of rows. It is bounded by the number of rows there are."""

    def __init__(self) -> None:
        self._rows: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rows: Rows) -> None:
        """Adds `rows` [R]; one that already waits keeps its place."""
        for row in rows.tolist():
            self._rows.setdefault(row)

    def discard(self, rows: Rows) -> None:
        """Forgets `rows` [R]: they are up to date."""
        if self._rows:
            for row in rows.tolist():
                self._rows.pop(row, None)

    def among(self, rows: Rows) -> NDArray[np.bool_]:
        """[R] which of `rows` wait."""
        return np.fromiter((row in self._rows for row in rows.tolist()), np.bool_, len(rows))

    def take(self, limit: int) -> Rows:
        """Removes and returns up to `limit` rows [R], oldest first."""
        taken = list(islice(self._rows, limit))
        for row in taken:
            del self._rows[row]
        return np.array(taken, np.int64)
