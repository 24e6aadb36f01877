"""A folder for models: one of this machine, or one of any store that pyarrow.fs knows (S3, GCS, HDFS, ABFS).

Each file appears whole, and is never written again: in a local folder it gets its name once it is on the disk, and
another store shows an object once all of it has come. Models are made from what people did, so only the engine's own
user may read local files.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from engine.failures import told
from engine.private_files import make_private_folder, warn_of_others
from engine.registry.errors import DamagedModel, RegistryError
from engine.snapshot.files import DamagedError, open_plain, sync_folder, write_file

_PIECE_BYTES = 2**20


class Place(Protocol):
    """A folder of files. Every method raises RegistryError where the place can't be reached or does not allow it.

    Attributes:
        shown: the place as people know it.
    """

    shown: str

    def write(self, name: str, data: bytes | bytearray) -> None:
        """Adds a file, whole; one of the name is replaced."""

    def read(self, name: str, limit: int) -> bytearray:
        """All of a file.

        Raises:
            DamagedModel: it is missing, or has more than `limit` bytes.
        """

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""


def place_of(address: str) -> Place:
    """The place that `registry.dir` names; nothing is asked of it yet."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return LocalFolder(Path(address))
    return LocalFolder(Path("/" + rest.lstrip("/"))) if scheme == "file" else Store(address)


class Nowhere:
    """In place of a folder that can't be told: nothing can be kept, and whoever tries hears why."""

    shown = "nowhere"

    def __init__(self, why: str) -> None:
        self._why = why

    def write(self, name: str, data: bytes | bytearray) -> None:
        raise RegistryError(self._why)

    def read(self, name: str, limit: int) -> bytearray:
        raise RegistryError(self._why)

    def delete(self, name: str) -> None:
        raise RegistryError(self._why)


class LocalFolder:
    """A folder of this machine, or one that is mounted here. It is made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shown = str(folder)

    def write(self, name: str, data: bytes | bytearray) -> None:
        with _said(self.shown):
            make_private_folder(self._folder)
            warn_of_others(self._folder)
            unfinished = self._folder / f".{name}.{uuid.uuid4().hex[:12]}"
            try:
                write_file(unfinished, _pieces(data))
                unfinished.replace(self._folder / name)
            finally:
                unfinished.unlink(missing_ok=True)
            sync_folder(self._folder)

    def read(self, name: str, limit: int) -> bytearray:
        path = self._folder / name
        with _said(self.shown):
            try:
                with open_plain(path) as file:
                    size = os.fstat(file.fileno()).st_size
                    _check_size(path, size, limit)
                    data = bytearray(size)
                    filled = 0
                    while count := file.readinto(memoryview(data)[filled : filled + _PIECE_BYTES]):  # type: ignore[attr-defined]
                        filled += count
            except DamagedError as error:
                raise DamagedModel(str(error)) from None
        return data

    def delete(self, name: str) -> None:
        with _said(self.shown):
            (self._folder / name).unlink(missing_ok=True)


class Store:
    """A folder of a store that is reached by the network."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.shown = address.partition("?")[0]  # What follows may name keys.
        self._opened: tuple[Any, str] | None = None

    def write(self, name: str, data: bytes | bytearray) -> None:
        with _said(self.shown):
            system, folder = self._open()
            if system.type_name not in ("s3", "gcs"):
                system.create_dir(folder, recursive=True)
            with system.open_output_stream(f"{folder}/{name}") as stream:
                stream.write(data)

    def read(self, name: str, limit: int) -> bytearray:
        with _said(self.shown):
            system, folder = self._open()
            path = f"{folder}/{name}"
            info = system.get_file_info(path)
            if not info.is_file:
                raise DamagedModel(f"{self.shown}/{name}: is missing")
            _check_size(f"{self.shown}/{name}", info.size, limit)
            with system.open_input_stream(path) as stream:
                return bytearray(stream.read())

    def delete(self, name: str) -> None:
        with _said(self.shown):
            system, folder = self._open()
            if system.get_file_info(f"{folder}/{name}").is_file:
                system.delete_file(f"{folder}/{name}")

    def _open(self) -> tuple[Any, str]:
        # Not before it is needed: S3 is asked for the region of a bucket, which takes long where it does not answer.
        if self._opened is None:
            from pyarrow.fs import FileSystem  # An engine with a folder of its own does without its memory.

            system, folder = FileSystem.from_uri(self._address)
            self._opened = system, folder.rstrip("/")
        return self._opened


def _pieces(data: bytes | bytearray) -> Iterator[memoryview]:
    whole = memoryview(data)
    return (whole[first : first + _PIECE_BYTES] for first in range(0, len(whole), _PIECE_BYTES))


def _check_size(path: object, size: int, limit: int) -> None:
    if size > limit:
        raise DamagedModel(f"{path}: has {size} bytes, at most {limit} make sense")


@contextmanager
def _said(shown: str) -> Iterator[None]:
    """Has every failure of the place name it."""
    try:
        yield
    except (OSError, ValueError, LookupError, NotImplementedError) as error:  # Arrow's are of these kinds, too.
        raise RegistryError(f"registry.dir {shown} can't be used: {' '.join(told(error).split())[:400]}") from error
