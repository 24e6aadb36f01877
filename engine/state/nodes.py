"""The users or items of one slice of the log: external ids to rows and back, within a limit.

A row that becomes free is given to the next new id. Its generation tells the two apart: whatever remembers a row
together with its generation knows whether that row still means the same.

Shapes: N rows there may be, E events in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.state.id_table import IdTable, digests
from engine.state.kernels import stamp
from engine.state.table import Table

_AT_ONCE = 16_384
_EVICTED_SHARE = 64  # one in so many rows goes at a time, so that looking for the longest idle costs O(1) per new id


class Nodes:
    """Rows by id. Ids that differ in a single byte are different: case and Unicode form matter.

    Attributes:
        generation: [N] int32 how often the row was taken back.
        seen: [N] int64 1 + offset of the last event that named it; 0 in a free row.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.generation = Table(limit, dtype=torch.int32)
        self.seen = Table(limit, dtype=torch.int64)
        self._table = IdTable(limit)
        self._id: list[str | None] = []  # None in a free row
        self._free: list[int] = []
        self.copy: NodesCopy | None = None  # one that is being made

    def __len__(self) -> int:
        return len(self._id) - len(self._free)

    @property
    def rows(self) -> int:
        """Rows ever used: all that are in use lie below."""
        return len(self._id)

    @property
    def free(self) -> Sequence[int]:
        """Rows below `rows` that are not in use, the next to be used last."""
        return self._free

    def get(self, name: str) -> int | None:
        """The row of one id, or None."""
        row = int(self.find((name,))[0])
        return None if row < 0 else row

    def lacks_room_for(self, name: str) -> bool:
        """Whether a name needs a row, and there is none; "" needs none."""
        return name != "" and self.get(name) is None and len(self) == self.limit

    def id_of(self, row: int) -> str | None:
        return self._id[row]

    def ids(self) -> Sequence[str | None]:
        """Ids by row, None where a row is free."""
        return self._id

    def find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """[E] rows of `ids`, -1 where an id has none."""
        return self.find_digests(digests(ids))[0]

    def find_digests(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """`find` of ids whose `digests` [E, 2] are known, and how many of them have no row."""
        return self._table.find(keys)

    @property
    def digests(self) -> NDArray[np.int64]:
        """[N, 2] `digests` of the ids by row, for compiled code to read."""
        return self._table.keys

    def read_digests(self, rows: NDArray[np.int64], first: int, keys: NDArray[np.int64]) -> None:
        """Fills `keys` [R, 2] with the `digests` of those of `rows` [R], counted from `first`, that are here."""
        self._table.read_keys(rows, first, keys)

    def add(self, ids: Sequence[str], rows: NDArray[np.int64]) -> list[int]:
        """Gives rows to ids that have none, in order of appearance.

        Args:
            rows: [E] what `find` says of `ids`; completed in place.

        Returns:
            The rows given.
        """
        new: dict[str, int] = {}
        for at in np.flatnonzero(rows < 0).tolist():
            name = ids[at]
            row = new.get(name)
            if row is None:
                if self._free:
                    row = self._free.pop()
                    self._keep(row)
                    self._id[row] = name
                else:
                    row = len(self._id)
                    self._id.append(name)
                new[name] = row
            rows[at] = row
        given = list(new.values())
        if given:
            self._table.insert(digests([*new]), np.array(given))
        return given

    def live(self) -> NDArray[np.int64]:
        """[R] rows in use, rising."""
        return self.seen.array[: self.rows].nonzero()[0]

    def see(self, rows: Tensor, seen: Tensor) -> None:
        """Notes that events named `rows` [E]; `seen` [E] is 1 + the offset of each, rising."""
        self.seen.note(rows)
        stamp(self.seen.array, rows.numpy(), seen.numpy())

    def longest_idle(self) -> Tensor:
        """[R] int64 the rows to take back when there is no room: one in 64 of the limit, at least one."""
        seen = self.seen.data[: self.rows]
        count = max(1, self.limit // _EVICTED_SHARE)
        seen = torch.where(seen == 0, torch.iinfo(torch.int64).max, seen)
        return seen.topk(min(count, len(self)), largest=False).indices.sort().values

    def remove(self, rows: Tensor) -> list[str]:
        """Takes `rows` [R] back; returns their ids."""
        ids = []
        for row in rows.tolist():
            name = self._id[row]
            assert name is not None, "a row is taken back once"
            self._keep(row)
            self._id[row] = None
            self._free.append(row)
            ids.append(name)
        self._table.remove(rows.numpy())
        self.generation.put(rows, self.generation.get(rows) + 1)
        self.seen.clear(rows)
        return ids

    def restore(self, ids: Sequence[str | None], free: Sequence[int]) -> None:
        """Takes over the ids that belong to tables filled from a snapshot."""
        self._id = list(ids)
        self._free = list(free)
        self._table = IdTable(self.limit)
        for first in range(0, len(ids), _AT_ONCE):
            part = [(row, name) for row, name in enumerate(ids[first : first + _AT_ONCE], first) if name is not None]
            if part:
                self._table.insert(digests([name for _, name in part]), np.array([row for row, _ in part]))

    def _keep(self, row: int) -> None:
        if self.copy is not None:
            self.copy.keep(row, self._id[row])


class NodesCopy:
    """The ids by row, as they were when the copy began; see `TableCopy`."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._rows = nodes.rows
        self._kept: dict[int, str | None] = {}
        self.ids: list[str | None] = []
        nodes.copy = self

    def keep(self, row: int, name: str | None) -> None:
        if len(self.ids) <= row < self._rows:
            self._kept.setdefault(row, name)

    def pieces(self, count: int) -> Iterator[int]:
        """Copies `count` ids per step."""
        while len(self.ids) < self._rows:
            done = len(self.ids)
            self.ids += self._nodes.ids()[done : min(self._rows, done + count)]
            yield len(self.ids) - done
        for row, name in self._kept.items():
            self.ids[row] = name
        self._nodes.copy = None
