"""A file as columns of text and numbers, and errors that say where a file is wrong.

Shapes: R rows of a file.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet
from numpy.typing import NDArray


class FileError(ValueError):
    """A file can't be used; the message says where, what was found and what is allowed."""


@dataclass(frozen=True)
class Table:
    """The known columns of a file, each of R rows, and the way to say where one is wrong."""

    path: Path
    columns: dict[str, pa.Array]
    rows: int

    def require(self, *names: str) -> None:
        for name in names:
            if name not in self.columns:
                raise FileError(
                    f"{self.path}: the column {name} must be there, got {', '.join(self.columns) or 'none'}"
                )
        if not self.rows:
            raise FileError(f"{self.path}: must hold at least one row below its header, got none")

    def text(self, name: str) -> pa.Array:
        """[R] strings without nulls; all empty where there is no such column."""
        column = self.columns.get(name)
        if column is None:
            return pa.array(np.full(self.rows, ""), pa.string())
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_nested(kind):
            raise FileError(f"{self.path}: {name} must be text or whole numbers, got a column of {kind}")
        with as_file_error(self.path):
            return column.cast(pa.string()).fill_null("")

    def check(self, wrong: pa.Array, column: str, allowed: str) -> None:
        """Raises for the first row that is `wrong` [R]."""
        rows = np.flatnonzero(as_numpy(wrong))
        if len(rows):
            raise self.error(int(rows[0]), column, allowed)

    def error(self, row: int, column: str, allowed: str) -> FileError:
        line = None if self.path.suffix == ".parquet" else _line(self.path, row)
        where = f"row {row + 1}" if line is None else f"line {line}"
        got = self.columns[column][row].as_py() if column in self.columns else ""
        return FileError(f"{self.path}, {where}: {column} must be {allowed}, got {got!r}")


def read_table(path: Path, known: Sequence[str]) -> Table:
    if not path.is_file():
        raise FileError(f"{path}: must be a file, found none")
    with as_file_error(path):
        if path.suffix == ".parquet":
            names = parquet.read_schema(path).names
        elif path.name.endswith((".csv", ".csv.gz")):
            with _open(path) as lines:
                names = next((record for record in csv.reader(lines) if record), [])
        else:
            raise FileError(f"{path}: must end in .csv, .csv.gz or .parquet")
        if not names:
            raise FileError(f"{path}: must begin with a line of column names, got an empty file")
        present = [name for name in known if name in names]
        for name in present:
            if names.count(name) > 1:
                raise FileError(f"{path}: the column {name} must be there once, got {names.count(name)}")
        if path.suffix == ".parquet":
            table = parquet.ParquetFile(path).read(columns=present)
        else:
            table = _read_csv(path, present)
        columns = {name: _whole(table.column(name)) for name in present}
    return Table(path, columns, table.num_rows)


def _read_csv(path: Path, present: list[str]) -> Any:
    return arrow_csv.read_csv(
        path,
        # One thread, because only then errors name their row.
        read_options=arrow_csv.ReadOptions(use_threads=False),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=present, column_types=dict.fromkeys(present, pa.string()), strings_can_be_null=False
        ),
    )


def _line(path: Path, row: int) -> int | None:
    """The line on which a row begins: cells may hold line breaks, and empty lines are no rows."""
    seen, begin = -1, 1
    try:
        with _open(path) as lines:
            reader = csv.reader(lines)
            for record in reader:
                if record and seen == row:
                    return begin
                seen += bool(record)
                begin = reader.line_num + 1
    except csv.Error:
        pass  # a cell too long for this reader
    return None


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


@contextmanager
def as_file_error(path: Path) -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError, csv.Error) as error:
        raise FileError(f"{path}: can't be read: {error}") from error


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def as_numpy(array: pa.Array) -> NDArray[Any]:
    return cast("NDArray[Any]", array.to_numpy(zero_copy_only=False))
