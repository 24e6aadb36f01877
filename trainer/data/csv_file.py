"""CSV files as RFC 4180 has them: commas, one header line, and values in quotes, which may hold line breaks.

Arrow reads the columns. It takes everything behind a quote that is never closed as one value and says nothing, so the
strict mode of Python's reader looks at every file that holds quotes first. A quote that only stands inside a value
without quotes, as in `5" disk`, is an ordinary character to both.

Shapes: R rows of a file.
"""

from __future__ import annotations

import csv
import gzip
import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO, cast

import pyarrow as pa
import pyarrow.csv as arrow_csv

from trainer.data.file_error import FileError, as_file_error, shown

_BLOCK_BYTES = 1 << 24  # Arrow wants each row to fit into one
_QUOTE = b'"'
# What files begin with that only look like CSV by their names.
_OTHER_FORMATS = {
    b"PK\x03\x04": "is a spreadsheet or a zip archive: save it as CSV in UTF-8",
    b"PAR1": "is a Parquet file: give it a name that ends in .parquet",
    b"\x1f\x8b": "is compressed by gzip: give it a name that ends in .csv.gz",
    b"\xff\xfe": "is in UTF-16: save it in UTF-8",
    b"\xfe\xff": "is in UTF-16: save it in UTF-8",
}
_log = logging.getLogger(__name__)


class _Row(NamedTuple):
    """One record, the header included, and the lines on which it begins and ends."""

    line: int
    last_line: int
    values: list[str]


def header_of(path: Path) -> list[str]:
    """The names of the columns; none where the file is empty.

    Raises:
        FileError: the file can't be read as CSV.
    """
    _check_format(path)
    return next((row.values for row in _rows(path)), [])


def read_columns(path: Path, header: Sequence[str], names: Sequence[str]) -> dict[str, pa.Array]:
    """The named columns, each [R] strings.

    Raises:
        FileError: a quote is never closed, a row has another number of values than the header, or the text is not
            UTF-8; names the line.
    """
    if _has_quotes(path):
        _check_rows(path, header)
    with as_file_error(path):
        try:
            table = arrow_csv.read_csv(
                path,
                read_options=arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=names, column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                ),
            )
        except pa.ArrowException:
            # What Arrow says of a row or of a byte has no line, so these look for it again.
            _check_rows(path, header)
            _check_encoding(path)
            raise
    return {name: table.column(name).combine_chunks() for name in names}


def _check_rows(path: Path, header: Sequence[str]) -> None:
    """Raises FileError for the first row that is none, and warns of one that has perhaps swallowed others."""
    swallowed = 0
    for line, last_line, values in islice(_rows(path), 1, None):
        if len(values) != len(header):
            raise FileError(
                f"{path}, line {line}: a row must have {len(header)} values, as the header has, got {len(values)}:"
                f" {shown(','.join(values))}"
            )
        if last_line > line and not swallowed and _holds_rows(values):
            swallowed = line
    if swallowed:
        _log.warning(
            "%s, line %d: a value in quotes goes on over lines that look like rows, which were not read as rows: is one"
            " of its quotes part of the text? Such a quote must be doubled, and its value be in quotes",
            path, swallowed,
        )  # fmt: skip


def line_of(path: Path, row: int) -> int:
    """The line on which a row begins: values may hold line breaks, and empty lines are no rows."""
    return next(islice(_rows(path), row + 1, None)).line


def _rows(path: Path) -> Iterator[_Row]:
    csv.field_size_limit(_BLOCK_BYTES)  # The reader's own limit of 131,072 characters is below what some titles have.
    begin = 1
    with as_file_error(path), _open(path) as lines:
        reader = csv.reader(lines, strict=True)
        try:
            for values in reader:
                if values:
                    yield _Row(begin, reader.line_num, values)
                begin = reader.line_num + 1
        except csv.Error as error:
            raise _quote_error(path, begin) or FileError(f"{path}, line {begin}: can't be read: {error}") from None


def _has_quotes(path: Path) -> bool:
    with as_file_error(path), _open_bytes(path) as file:
        return any(_QUOTE in block for block in iter(lambda: file.read(_BLOCK_BYTES), b""))


def _holds_rows(values: Sequence[str]) -> bool:
    """Whether one value holds whole lines with as many separators as a row has.

    So it looks where one stray quote opens a value and another, further down, closes it.
    """
    for value in values:
        if "\n" in value:
            lines = value.splitlines()
            inner = lines[1:-1] or lines[1:]
            if inner and all(line.count(",") == len(values) - 1 for line in inner):
                return True
    return False


def _quote_error(path: Path, first_line: int) -> FileError | None:
    """What is wrong with the quotes from a line on that begins a record; None where they are right."""
    opened = 0  # the line where the value in quotes opens that the scan is in, 0 outside of quotes
    with _open(path) as lines:
        for number, line in enumerate(islice(lines, first_line - 1, None), first_line):
            at = 0
            while at < len(line):
                if opened:
                    at = line.find('"', at) + 1
                    if not at:
                        break
                    if line[at : at + 1] == '"':
                        at += 1
                    elif line[at : at + 1] in ("", ",", "\r", "\n"):
                        opened, at = 0, at + 1
                    else:
                        end = "" if number == opened else f" on line {number}"
                        return FileError(
                            f"{path}, line {opened}: a comma or the end of the line must follow where a value in quotes"
                            f" ends, and a quote inside of it must be doubled; got a value that ends{end} before"
                            f" {shown(line[at:].rstrip())}"
                        )
                elif line[at] == '"':
                    opened, at = number, at + 1
                else:
                    at = line.find(",", at) + 1
                    if not at:
                        break
    if opened:
        return FileError(
            f"{path}, line {opened}: a value that begins with a quote must end with one, got none up to the end of the"
            " file; a quote that is part of the text must be doubled, and its value be in quotes"
        )
    return None


def _check_encoding(path: Path) -> None:
    """Raises FileError for the first line that is not UTF-8."""
    number = 0
    with as_file_error(path), _open_bytes(path) as file:
        for data in file:
            for line in data.splitlines():
                number += 1
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    byte = line[error.start : error.start + 1]
                    raise FileError(
                        f"{path}, line {number}: must be text in UTF-8, got the byte 0x{byte.hex()}, which is"
                        f" {byte.decode('cp1252', 'replace')!r} in Windows-1252 and in Latin-1: save the file in UTF-8"
                    ) from None


def _check_format(path: Path) -> None:
    """Raises FileError where the first bytes are those of another format."""
    with as_file_error(path), _open_bytes(path) as file:
        begin = file.read(4)
    for mark, problem in _OTHER_FORMATS.items():
        if begin.startswith(mark):
            raise FileError(f"{path}: {problem}")


def _open(path: Path) -> TextIO:
    """The file as text, in which bytes that are not UTF-8 are replaced: columns that nobody reads may hold such."""
    if path.suffix == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline=""))
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
