"""Files that are whole or known to be damaged: written with a digest, read back against it.

Everything goes in pieces, so that a thread which writes or reads never holds the interpreter for long: hashing and
copying a piece let other threads run. Whoever can write to the folder may have put anything there, so only plain files
are read: no link leads out of it, and no pipe is waited for.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from engine.private_files import open_private

_PIECE_BYTES = 2**20


class DamagedError(Exception):
    """A file is not what was written; says which and what is wrong."""


@dataclass(frozen=True)
class FileEntry:
    """A data file as a manifest describes it."""

    name: str
    bytes: int
    sha256: str


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> FileEntry:
    """Writes a new file through to the disk."""
    digest, size = hashlib.sha256(), 0
    with open_private(path, new=True) as file:
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


def open_plain(path: Path) -> BinaryIO:
    """Opens a file for reading, unless it is a link, a pipe or anything else but a plain file.

    Raises:
        DamagedError: it is none, or missing.
        OSError: the file can't be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DamagedError(f"{path}: is missing") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise DamagedError(f"{path}: is no plain file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedError(f"{path}: is no plain file")
    return os.fdopen(descriptor, "rb", buffering=0)


def read_small(path: Path, limit: int) -> bytes:
    """All of a file that has at most `limit` bytes.

    Raises:
        DamagedError, OSError: as `open_plain`, or it has more.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise DamagedError(f"{path}: has {size} bytes, at most {limit} make sense")
        parts = []
        while piece := file.read(_PIECE_BYTES):
            parts.append(piece)
        return b"".join(parts)


def read_buffers(folder: Path, entry: FileEntry, arrays: Sequence[NDArray[np.generic]]) -> None:
    """Fills contiguous arrays with what `buffer_pieces` gave, checking what is read on its way.

    Raises:
        DamagedError: the arrays hold nothing of use then.
        OSError: the file can't be read.
    """
    path = folder / entry.name
    digest = hashlib.sha256()
    with _right_size(path, entry) as file:
        for piece in buffer_pieces(arrays):
            at = 0
            while at < len(piece):
                count = file.readinto(piece[at:])  # type: ignore[attr-defined]
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
    path = folder / entry.name
    with _right_size(path, entry) as raw, os.fdopen(os.dup(raw.fileno()), "rb") as file:
        _right_digest(path, entry, hashlib.file_digest(file, "sha256").hexdigest())
        file.seek(0)
        yield from file


def check_size(folder: Path, entry: FileEntry) -> None:
    """That a file has the size that the manifest says, before anything is reserved for its content.

    Raises:
        DamagedError, OSError: as `read_buffers`.
    """
    _right_size(folder / entry.name, entry).close()


def sync_folder(path: Path) -> None:
    """Writes the names in a folder through to the disk, and not the content of its files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _right_size(path: Path, entry: FileEntry) -> BinaryIO:
    file = open_plain(path)
    size = os.fstat(file.fileno()).st_size
    if size != entry.bytes:
        file.close()
        raise DamagedError(f"{path}: has {size} bytes, the manifest says {entry.bytes}")
    return file


def _right_digest(path: Path, entry: FileEntry, sha256: str) -> None:
    if sha256 != entry.sha256:
        raise DamagedError(f"{path}: has SHA-256 {sha256}, the manifest says {entry.sha256}")
