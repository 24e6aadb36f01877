"""The configuration's file: read as TOML, with the line of each of its values, so that an error can name it."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config.section import ConfigError, home_resolved

Location = tuple[int | str, ...]

_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class TomlFile:
    """The contents of a file of settings.

    Attributes:
        path: as the user wrote it, with the home folder in place of `~`.
    """

    path: Path
    data: Mapping[str, Any]
    text: str

    def keys(self, location: Location) -> list[str]:
        """The keys of the table at a place; none where there is no table."""
        found = _found(self.data, location)
        return list(found) if isinstance(found, Mapping) else []

    def place(self, location: Location) -> str | None:
        """`FILE, line N`, where the statement begins that sets a value; None where the file does not set it."""
        if not _holds(self.data, location):
            return None
        lines = self.text.split("\n")
        end = bisect_left(range(len(lines) + 1), True, key=lambda count: _holds(_statements(lines, count)[1], location))
        begin = _statements(lines, end - 1)[0] + 1
        return f"{self.path}, line {begin}"


def read_toml(path: Path) -> TomlFile:
    """Reads a file of settings.

    Raises:
        ConfigError: it can't be read, or is not TOML in UTF-8; the message is one line with the file and the line.
    """
    try:
        path = home_resolved(path)
    except ValueError as error:
        raise ConfigError(f"--config {error}, got {str(path)!r}") from None
    if path.is_dir():
        raise ConfigError(f"--config must name a file, got the folder {str(path)!r}")
    if not (path.is_file() or path.is_fifo()):  # Shells hand over the output of a command as a FIFO.
        raise ConfigError(f"--config must name a file, got {str(path)!r}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--config {str(path)!r} can't be read: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")  # Windows' editors put a byte order mark at the head.
    except UnicodeDecodeError as error:
        what = "it seems to be UTF-16" if raw.startswith(_UTF_16) else f"byte 0x{raw[error.start]:02x} is none of it"
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: must be TOML in UTF-8: {what}") from None
    try:
        return TomlFile(path, tomllib.loads(text), text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.search(str(error))
        line = int(found["line"]) if found and found["line"] else text.rstrip().count("\n") + 1
        message = _PLACE.sub(lambda place: f" (column {place['column']})" if place["column"] else "", str(error))
        raise ConfigError(f"{path}, line {line}: must be TOML in UTF-8: {message}") from None
    except (ValueError, RecursionError) as error:  # A number of thousands of digits, or brackets as deep.
        lines = text.split("\n")
        line = bisect_left(range(len(lines) + 1), True, key=lambda count: _breaks(lines, count))
        raise ConfigError(f"{path}, line {line}: must be TOML in UTF-8: {error}") from None


def _breaks(lines: Sequence[str], count: int) -> bool:
    """Tells whether the parser gives up on the first `count` lines for another reason than their grammar."""
    try:
        tomllib.loads("\n".join(lines[:count]))
    except tomllib.TOMLDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return False


def _statements(lines: Sequence[str], count: int) -> tuple[int, Mapping[str, Any]]:
    """Returns how many of the first `count` lines are whole statements, and the values that these set."""
    while count > 0:
        try:
            return count, tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            count -= 1  # The line lies within a statement.
    return 0, {}


def _holds(data: Mapping[str, Any], location: Location) -> bool:
    return _found(data, location) is not None  # TOML has no null.


def _found(data: Any, location: Location) -> Any:
    """The value at a place; None where there is none."""
    for part in location:
        if isinstance(data, Mapping) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data
