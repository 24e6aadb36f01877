"""Rows of one tensor: reserved whole, paid for as they are used, and copied in pieces while they change.

A table's address space is reserved at once and the machine backs a page of it with memory when a row in it is first
written. So it never grows and nothing is ever moved: no pause, however many rows there are. Zero must therefore mean
"nothing here" in every table.

Shapes: N rows a table may have, R rows written.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Linux: don't count what is reserved against the memory there is. Elsewhere the plain reservation is lazy, too.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
_LAZY_FROM_BYTES = 1 << 16
_SMALL_BYTES = 4 << 20


class ReservationError(MemoryError):
    """The machine refuses the address space that the limits ask for."""


def reserve(rows: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """[rows, *shape] zeros, without memory behind them until they are written.

    Raises:
        ReservationError: the limits in `state` are too high for this machine.
    """
    cells = rows
    for length in shape:
        cells *= length
    size = cells * dtype.itemsize
    if size < _LAZY_FROM_BYTES:
        return torch.zeros((rows, *shape), dtype=dtype)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    except OSError as error:
        raise ReservationError(
            f"{size / 2**30:.1f} GiB of address space can't be reserved ({error}): lower state.max_users,"
            " state.max_items or state.history, or let the machine overcommit memory"
        ) from error
    if size > _SMALL_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        # Random access to much memory spends its time on address translation. A small state keeps small pages.
        pages.madvise(mmap.MADV_HUGEPAGE, _SMALL_BYTES)
    return torch.frombuffer(pages, dtype=dtype).view(rows, *shape)


class Table:
    """A reserved tensor whose rows are written through `put`, so that a copy of one moment can be taken meanwhile.

    Attributes:
        data: [N, ...] to be read freely, and written by `put` alone.
        array: the same memory for compiled code, which may write there while `loose`.
        copying: the copy that has to hear of what is written; None where none is being made.
    """

    def __init__(self, rows: int, shape: tuple[int, ...] = (), *, dtype: torch.dtype) -> None:
        self.data = reserve(rows, shape, dtype)
        self.array = self.data.numpy()
        # Numpy moves rows several times faster than torch, each as one element however wide it is.
        self._rows = _as_elements(self.data)
        self._shape, self._dtype = shape, self.array.dtype
        self.copying: TableCopy | None = None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def loose(self) -> bool:
        """Whether no copy has to hear of what is written."""
        return self.copying is None

    def get(self, rows: Tensor) -> Tensor:
        """[R, ...] the values at `rows` [R]. Several times faster than indexing `data`, as `put` is."""
        found = self._rows.take(rows.numpy())
        if self._shape:
            found = found.view(self._dtype).reshape(len(found), *self._shape)
        return torch.from_numpy(found)

    def put(self, rows: Tensor, values: Tensor) -> None:
        """Writes `values` [R, ...], of the table's dtype, at distinct `rows` [R]."""
        self.note(rows)
        self._rows[rows.numpy()] = _as_elements(values.contiguous())

    def note(self, rows: Tensor) -> None:
        """Tells a copy that is being made that `rows` [R] are about to be written in `array`."""
        if self.copying is not None:
            self.copying.keep(rows)

    def clear(self, rows: Tensor) -> None:
        """Zeroes distinct `rows` [R]."""
        self.note(rows)
        self.data.index_fill_(0, rows, 0)

    def copy(self, rows: int) -> TableCopy:
        """Begins a copy of the first `rows` as they are now; at most one at a time."""
        self.copying = TableCopy(self, rows)
        return self.copying

    def end_copy(self) -> None:
        """Stops noting what a copy would need."""
        self.copying = None


def take(column: Tensor, index: Tensor) -> Tensor:
    """`column` [E, ...] at `index` [R], by the fastest way there is."""
    return torch.from_numpy(column.numpy().take(index.numpy(), axis=0))


def put(column: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Sets `column` [E] at distinct `index` [R] by the fastest way there is; returns it."""
    column.numpy()[index.numpy()] = values.numpy()
    return column


def _as_elements(rows: Tensor) -> NDArray[np.generic]:
    """[N] the same memory with a whole row [...] as one element."""
    array = rows.numpy()
    if array.ndim == 1:
        return array
    cells = int(np.prod(array.shape[1:]))
    width = array.itemsize * cells
    # Numpy has a quick path for the sizes of its numbers, and 16 bytes are a number too.
    return array.reshape(len(array), cells).view(np.complex128 if width == 16 else f"V{width}").reshape(-1)


class TableCopy:
    """A table as it was when the copy began, made piece by piece in the thread that writes the table.

    Rows are copied in order. One that is written before its turn comes is kept as it was, and put in its place at last.
    """

    def __init__(self, table: Table, rows: int) -> None:
        self._table = table
        self._rows = rows
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._noted = torch.zeros(rows, dtype=torch.bool)  # [rows] whether a row is among them
        self._done = 0
        self.data = torch.empty((rows, *table.data.shape[1:]), dtype=table.data.dtype)

    def keep(self, rows: Tensor) -> None:
        late = rows[(rows >= self._done) & (rows < self._rows)]
        late = late[~self._noted[late]]
        if len(late):
            self._noted[late] = True
            self._kept.append((late, self._table.get(late)))

    def pieces(self, piece_bytes: int) -> Iterator[int]:
        """Copies about `piece_bytes` per step; yields the bytes of each. Afterwards `data` is whole."""
        row_bytes = max(1, self._table.data[:1].nbytes)
        step = max(1, piece_bytes // row_bytes)
        while self._done < self._rows:
            end = min(self._rows, self._done + step)
            self.data[self._done : end] = self._table.data[self._done : end]
            copied, self._done = end - self._done, end
            yield copied * row_bytes
        for rows, values in self._kept:
            self.data[rows] = values
        self._kept.clear()
        self._table.end_copy()
