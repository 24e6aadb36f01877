"""Files that are whole or known to be damaged: written with a digest, read back against it.

Everything goes in pieces, so that a thread which writes or reads never holds the interpreter for long: hashing and
copying a piece let other threads run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PIECE_BYTES = 2**20


class DamagedError(Exception):
    """A file is not what was written; says which and what is wrong."""


@dataclass(frozen=True)
class FileEntry:
    """What a manifest says of a data file."""

    name: str
    bytes: int
    sha256: str


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> FileEntry:
    """Writes a new file through to the disk."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(path.name, size, digest.hexdigest())


def buffer_pieces(arrays: Iterable[NDArray[np.generic]]) -> Iterator[memoryview]:
    """The bytes of contiguous arrays, back to back, without a copy."""
    for array in arrays:
        buffer = array.reshape(-1).view(np.uint8).data
        for first in range(0, len(buffer), _PIECE_BYTES):
            yield buffer[first : first + _PIECE_BYTES]


def read_buffers(folder: Path, entry: FileEntry, arrays: Sequence[NDArray[np.generic]]) -> None:
    """Fills contiguous arrays with what `buffer_pieces` gave, checking what is read on its way.

    Raises:
        DamagedError: the arrays hold nothing of use then.
        OSError: the file can't be read.
    """
    path = _right_size(folder, entry)
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for piece in buffer_pieces(arrays):
            at = 0
            while at < len(piece):
                count = file.readinto(piece[at:])
                if not count:
                    raise DamagedError(f"{path}: ends too early")
                at += count
            digest.update(piece)
    _right_digest(path, entry, digest.hexdigest())


def checked_lines(folder: Path, entry: FileEntry) -> Iterator[bytes]:
    """The lines of a file, the first of them only once the whole file has been checked.

    Raises:
        DamagedError, OSError: as `read_buffers`.
    """
    path = _right_size(folder, entry)
    with path.open("rb") as file:
        _right_digest(path, entry, hashlib.file_digest(file, "sha256").hexdigest())
        file.seek(0)
        yield from file


def sync_folder(path: Path) -> None:
    """Makes the names in a folder safe; what is in its files isn't meant."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _right_size(folder: Path, entry: FileEntry) -> Path:
    path = folder / entry.name
    if not path.is_file():
        raise DamagedError(f"{path}: is missing")
    size = path.stat().st_size
    if size != entry.bytes:
        raise DamagedError(f"{path}: has {size} bytes, the manifest says {entry.bytes}")
    return path


def _right_digest(path: Path, entry: FileEntry, sha256: str) -> None:
    if sha256 != entry.sha256:
        raise DamagedError(f"{path}: has SHA-256 {sha256}, the manifest says {entry.sha256}")
