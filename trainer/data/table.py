"""A file of rows as columns, checked by its header first, and the way to say where one of its values is wrong.

Every CSV and Parquet file that a user gives goes through `read_table`.

Shapes: R rows of a file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainer.data.columns import ColumnError, as_lists, as_text
from trainer.data.csv_file import header_of, line_of, read_columns
from trainer.data.file_error import FileError, as_file_error, shown
from trainer.data.parquet_file import ParquetParts

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """The known columns of a file, each of R rows, and the way to say where one is wrong.

    Attributes:
        place: the file and the line, or the row, of a row that is counted from 0.
    """

    path: Path
    columns: dict[str, pa.Array]
    rows: int
    place: Callable[[int], str]

    def text(self, name: str) -> pa.Array:
        """[R] strings without nulls; all empty where there is no such column."""
        column = self.columns.get(name)
        if column is None:
            return pa.array(np.full(self.rows, ""), pa.string())
        with self.naming(name):
            return as_text(column).fill_null("")

    def lists(self, name: str) -> list[list[str]] | None:
        """[R] lists of strings; None where there is no such column, or where it is not one of lists."""
        column = self.columns.get(name)
        with self.naming(name):
            return None if column is None else as_lists(column)

    @contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """Has the error of a column name the file and the column."""
        try:
            yield
        except ColumnError as error:
            raise FileError(f"{self.path}: {name} {error}") from None

    def check(self, wrong: pa.Array, column: str, allowed: str) -> None:
        """Raises for the first row that is `wrong` [R]."""
        rows = np.flatnonzero(as_numpy(wrong))
        if len(rows):
            raise self.error(int(rows[0]), column, allowed)

    def error(self, row: int, column: str, allowed: str) -> FileError:
        got = self.columns[column][row].as_py() if column in self.columns else ""
        return FileError(f"{self.place(row)}: {column} must be {allowed}, got {shown(got)}")


def read_table(path: Path, known: Sequence[str], required: Sequence[Sequence[str]]) -> Table:
    """Reads the known columns of a CSV file, a gzip'd one, a Parquet file, or a folder of Parquet files.

    Args:
        required: of each of these groups one column must be there.

    Raises:
        FileError: the file can't be read, or lacks a column; says which columns it has.
    """
    _check_is_there(path)
    if path.is_dir() or path.suffix == ".parquet":
        parts = ParquetParts(path)
        present = _check_header(path, parts.names, known, required)
        columns, rows = parts.read(present)
        place = parts.place
    elif path.name.endswith((".csv", ".csv.gz")):
        header = header_of(path)
        if not header:
            raise FileError(f"{path}: must begin with a line of column names, got an empty file")
        present = _check_header(path, header, known, required)
        columns = read_columns(path, header, present)
        rows = len(columns[present[0]])

        def place(row: int) -> str:
            return f"{path}, line {line_of(path, row)}"
    else:
        raise FileError(f"{path}: must end in .csv, .csv.gz or .parquet, or be a folder of .parquet files")
    if not rows:
        raise FileError(f"{path}: must hold at least one row below its header, got none")
    return Table(path, columns, rows, place)


def as_numpy(array: pa.Array) -> NDArray[Any]:
    return cast("NDArray[Any]", array.to_numpy(zero_copy_only=False))


def _check_is_there(path: Path) -> None:
    with as_file_error(path):
        there = path.is_file() or path.is_dir()
    if not there:
        raise FileError(f"{path}: must be a file, found none")


def _check_header(
    path: Path, names: Sequence[str], known: Sequence[str], required: Sequence[Sequence[str]]
) -> list[str]:
    """The known columns that are there; the log says which others there are.

    Raises:
        FileError: a column is missing or there twice.
    """
    likely = {name: near for name in names if (near := _likely(name, known)) is not None and near not in names}
    renames = ", ".join(f"rename {name!r} to {near}" for name, near in likely.items())
    missing = [" or ".join(group) for group in required if not set(group) & set(names)]
    if missing:
        columns = f"the column {missing[0]}"
        if len(missing) > 1:
            columns = f"the columns {', '.join(missing[:-1])}, and {missing[-1]}"
        raise FileError(
            f"{path}: {columns} must be there, got the header {shown(','.join(names))}"
            f"{_separator_hint(names, known) or (renames and f': {renames}')}"
        )
    present = [name for name in known if name in names]
    for name in present:
        if names.count(name) > 1:
            raise FileError(f"{path}: the column {name} must be there once, got {names.count(name)}")
    if likely:
        _log.warning("%s: columns that are not read, because their names are others: %s", path, renames)
    others = [name for name in names if name not in known and name not in likely]
    if others:
        _log.info("%s: columns that nothing reads: %s", path, shown(", ".join(others)))
    return present


def _separator_hint(names: Sequence[str], known: Sequence[str]) -> str:
    """What to do where the header is one of other separators."""
    if len(names) != 1:
        return ""
    for separator, called in _SEPARATORS.items():
        if any(_likely(name, known) or name in known for name in names[0].split(separator)[1:]):
            return f": its values are separated by {called}; write the file with commas"
    return ""


def _likely(name: str, known: Sequence[str]) -> str | None:
    """The known column that a name is another spelling of, such as `ITEM_ID`, `item id` or `itemId`."""
    if name in known:
        return None
    plain = re.sub(r"[\W_]+", "", name).lower()
    return next((each for each in known if each.replace("_", "") == plain), None)
