"""The items that this process knows of: external ids to rows that all rooms share, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class IdMap:
    """Gives every id a row at first sight; a row taken back goes to a later id.

    Ids are compared byte for byte: case and Unicode form matter.
    """

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self._id: list[str] = []  # "" in a free row
        self._free: list[int] = []
        self._given: list[int] = []

    def __len__(self) -> int:
        """Rows ever used; all that are in use lie below."""
        return len(self._id)

    @property
    def count(self) -> int:
        """Ids that have a row."""
        return len(self._row)

    def add(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Rows of `ids` [E]; unseen ids get rows in order of appearance."""
        rows = []
        for name in ids:
            found = self._row.get(name)
            if found is None:
                if self._free:
                    found = self._free.pop()
                    self._id[found] = name
                else:
                    found = len(self._id)
                    self._id.append(name)
                self._row[name] = found
                self._given.append(found)
            rows.append(found)
        return np.array(rows, np.int64)

    def take_given(self) -> NDArray[np.int64]:
        """[R] rows that were given to an id since this was last asked, rising, each once."""
        given, self._given = self._given, []
        return np.array(sorted(set(given)), np.int64)

    def remove(self, row: int) -> None:
        """Takes a row back."""
        del self._row[self._id[row]]
        self._id[row] = ""
        self._free.append(row)

    def find(self, ids: Iterable[str]) -> Tensor:
        """Rows of `ids` [E] int64, -1 where an id has none."""
        return torch.tensor([self._row.get(name, -1) for name in ids], dtype=torch.int64)

    def get(self, name: str) -> int | None:
        """The row of one id, or None."""
        return self._row.get(name)

    def id_of(self, row: int) -> str:
        return self._id[row]

    def ids(self) -> Sequence[str]:
        """All ids by row, "" where a row is free."""
        return self._id
