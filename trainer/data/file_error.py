"""The one error of files: it says which file is wrong, where, what was found there and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

_MAX_CHARS = 200


class FileError(ValueError):
    """A file can't be used; the message says where, what was found and what is allowed."""


@contextmanager
def as_file_error(path: Path) -> Iterator[None]:
    """Turns what libraries and the disk raise while a file is read into a `FileError` that names the file."""
    try:
        yield
    except FileError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        # The messages of Arrow may go on with a stack of its C++ functions, line by line.
        raise FileError(f"{path}: can't be read: {str(error).splitlines()[0] if str(error) else error!r}") from error


def shown(value: object) -> str:
    """A value of a file as a message shows it: quoted, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}... ({len(text)} characters)"
