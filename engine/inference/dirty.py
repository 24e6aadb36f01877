"""Rows waiting to be recomputed, oldest first, each once."""

from __future__ import annotations

import torch
from torch import Tensor


class DirtyRows:
    """An ordered set of rows. It is bounded by the number of rows there are."""

    def __init__(self) -> None:
        self._rows: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rows: Tensor) -> None:
        """Adds `rows` [R] int64; one that already waits keeps its place."""
        for row in rows.tolist():
            self._rows.setdefault(row)

    def discard(self, rows: Tensor) -> None:
        """Forgets `rows` [R]: they are up to date."""
        for row in rows.tolist():
            self._rows.pop(row, None)

    def take(self, limit: int) -> Tensor:
        """Removes and returns up to `limit` rows [R], oldest first."""
        taken = list(self._rows)[:limit] if limit < len(self._rows) else list(self._rows)
        for row in taken:
            del self._rows[row]
        return torch.tensor(taken, dtype=torch.int64)
