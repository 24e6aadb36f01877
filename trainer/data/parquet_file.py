"""Parquet files, and folders of part files as Spark writes them.

Of a folder every file below it counts whose name ends in .parquet, in the order of their paths. What begins with an
underscore or a dot is not data: `_SUCCESS`, `_temporary`, checksums. A folder named `name=value` is a column of all the
rows below it, as text.

Shapes: R rows of all parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from trainer.data.columns import plain
from trainer.data.file_error import FileError, as_file_error

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # in the name of a folder: its rows have no value in that column


class ParquetParts:
    """One file, or all part files of a folder.

    Attributes:
        names: the columns that any part has.

    Raises:
        FileError: a part is no Parquet file, or the folder holds none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._paths = _parts_below(path) if path.is_dir() else [path]
        self._of_folders = [_columns_of_folders(part.relative_to(path).parts[:-1]) for part in self._paths]
        names: dict[str, None] = {}
        for part, of_folders in zip(self._paths, self._of_folders, strict=True):
            with as_file_error(part):
                own = parquet.read_schema(part).names
            again = [name for name in own if own.count(name) > 1]
            if again:
                raise FileError(f"{part}: the column {again[0]} must be there once, got {own.count(again[0])}")
            names |= dict.fromkeys([*own, *of_folders])
        self.names = list(names)
        self._ends: list[int] = []  # [parts] one past the last row of each

    def read(self, names: Sequence[str]) -> tuple[dict[str, pa.Array], int]:
        """The named columns, each [R] and without encodings that only save space, and R."""
        tables = [self._read_part(at, names) for at in range(len(self._paths))]
        self._ends = list(accumulate(table.num_rows for table in tables))
        columns = {}
        for name in names:
            try:
                column = pa.concat_tables([table.select([name]) for table in tables], promote_options="permissive")
            except pa.ArrowException:
                types = dict.fromkeys(str(table.schema.field(name).type) for table in tables)
                raise FileError(
                    f"{self._path}: {name} must be of one type in all part files, got {' and '.join(types)}"
                ) from None
            with as_file_error(self._path):
                columns[name] = column[name].combine_chunks()
        return columns, self._ends[-1]

    def place(self, row: int) -> str:
        """The file and the row in it."""
        part = int(np.searchsorted(self._ends, row, side="right"))
        before = self._ends[part - 1] if part else 0
        return f"{self._paths[part]}, row {row - before + 1}"

    def _read_part(self, at: int, names: Sequence[str]) -> pa.Table:
        path, of_folders = self._paths[at], self._of_folders[at]
        with as_file_error(path), parquet.ParquetFile(path) as file:
            own = [name for name in names if name in file.schema_arrow.names]
            read = file.read(columns=own)
            rows = file.metadata.num_rows
            columns = {name: plain(read.column(name).combine_chunks()) for name in own}
        for name in set(names) - set(own):
            kind = pa.string() if name in of_folders else pa.null()
            columns[name] = pa.array([of_folders.get(name)] * rows, kind)
        return pa.table(columns)


def _parts_below(folder: Path) -> list[Path]:
    with as_file_error(folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
    data = [path for path in files if not any(part[0] in "._" for part in path.relative_to(folder).parts)]
    parts = [path for path in data if path.suffix == ".parquet"]
    if not parts:
        seen = ", ".join(path.name for path in data[:3]) or "none"
        raise FileError(f"{folder}: a folder must hold files whose names end in .parquet, got {seen}")
    return parts


def _columns_of_folders(folders: Sequence[str]) -> dict[str, str | None]:
    """Of `kind=view/day=1`: {"kind": "view", "day": "1"}."""
    pairs = (folder.partition("=") for folder in folders)
    return {
        unquote(name): None if value == _NO_VALUE else unquote(value) for name, separator, value in pairs if separator
    }
