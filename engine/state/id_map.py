"""External string ids to dense rows, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class IdMap:
    """Gives every id the next row at first sight. Ids are compared byte for byte: case and Unicode form matter."""

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self._id: list[str] = []

    def __len__(self) -> int:
        return len(self._id)

    def add(self, ids: Iterable[str]) -> Tensor:
        """Rows of `ids` [E] int64; unseen ids get new rows in order of appearance."""
        row, known = self._row, self._id
        rows = []
        for name in ids:
            found = row.get(name)
            if found is None:
                found = row[name] = len(known)
                known.append(name)
            rows.append(found)
        return torch.tensor(rows, dtype=torch.int64)

    def find(self, ids: Iterable[str]) -> Tensor:
        """Rows of `ids` [E] int64, -1 where an id was never seen."""
        return torch.tensor([self._row.get(name, -1) for name in ids], dtype=torch.int64)

    def get(self, name: str) -> int | None:
        """The row of one id, or None."""
        return self._row.get(name)

    def id_of(self, row: int) -> str:
        return self._id[row]

    def ids(self) -> Sequence[str]:
        """All ids, by row."""
        return self._id
