"""The archive's folder: Parquet files by day, and `archive.json`, which says which of them count.

A change writes new files, then replaces `archive.json` in one step, then deletes the files that it no longer names. So
whenever the process dies, the folder holds what it held before or after the change; whatever else lies there is deleted
at the next start. Files never change.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.private_files import make_private_file, make_private_folder, open_private, warn_of_others

_MANIFEST = "archive.json"
_LOCK = "lock"
_OURS = re.compile(r"day=\d{4}-\d\d-\d\d/(?P<number>\d+)\.parquet(\.writing)?")
_ROW_GROUP = 65_536  # rows that can be skipped, or must be read, together

_log = logging.getLogger(__name__)


class ArchiveError(RuntimeError):
    """The archive can't be used; the message says why, and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArchivedFile(_Part):
    """A file by its path in the folder: its rows are in rising order of their ordinals, from `first` to `last`."""

    # The manifest may be anybody's: no name leads out of the folder.
    name: str = Field(pattern=r"^day=[0-9]{4}-[0-9]{2}-[0-9]{2}/[0-9]{1,18}\.parquet$")
    rows: int = Field(ge=0)
    first: int = Field(ge=0)
    last: int = Field(ge=0)

    @property
    def day(self) -> str:
        return self.name[len("day=") : self.name.index("/")]


class Position(_Part):
    """How far a partition is archived.

    Attributes:
        end: the offset behind it.
        last_offset, last_timestamp_ms: of the last archived event, to know the log by; -1 where there is none.
    """

    end: int
    last_offset: int = -1
    last_timestamp_ms: int = -1


class Manifest(_Part):
    """All that counts.

    Attributes:
        topic_id: the broker's; None where it gives none.
        next_ordinal: of the next event to be archived.
        positions: by partition.
        files: those of a day in rising order of their ordinals.
    """

    format: Literal[1] = 1
    topic: str
    topic_id: str | None
    next_ordinal: int = 0
    positions: dict[int, Position] = {}
    files: tuple[ArchivedFile, ...] = ()


class ArchiveFolder:
    """Held by one process at a time.

    Args:
        topic, topic_id: the log that is archived here.

    Attributes:
        manifest: what counts now.

    Raises:
        ArchiveError: the folder can't be made, read or written, another process has it, or it is of another log.
    """

    def __init__(self, path: Path, topic: str, topic_id: str | None) -> None:
        self._path = path
        try:
            make_private_folder(path)
            warn_of_others(path)
            self._lock = open_private(path / _LOCK)
        except OSError as error:
            raise ArchiveError(f"trainer.archive_dir {path} can't be made or written: {error}") from error
        try:
            self._hold()
            self._open(topic, topic_id)
        except OSError as error:
            self.close()
            raise ArchiveError(f"trainer.archive_dir {path} can't be read or written: {error}") from error
        except ArchiveError:
            self.close()
            raise

    def close(self) -> None:
        """Lets others have it."""
        self._lock.close()

    def size_bytes(self) -> int:
        """Bytes of the files that count; one that is being replaced may be missing. From any thread."""
        size = 0
        for file in self.manifest.files:
            with suppress(OSError):
                size += (self._path / file.name).stat().st_size
        return size

    def write(self, day: str, table: pa.Table) -> ArchivedFile:
        """A new file of one day's rows, which counts once it is committed.

        Raises:
            OSError: it can't be written.
        """
        self._number += 1
        name = f"day={day}/{self._number:08}.parquet"
        path = self._path / name
        make_private_folder(path.parent)
        make_private_file(writing := path.with_name(f"{path.name}.writing"))
        parquet.write_table(table, writing, compression="zstd", row_group_size=_ROW_GROUP, write_page_checksum=True)
        _sync(writing)
        writing.replace(path)
        ordinal = table["ordinal"]
        return ArchivedFile(name=name, rows=len(table), first=ordinal[0].as_py(), last=ordinal[-1].as_py())

    def read(
        self, file: ArchivedFile, columns: Sequence[str] | None = None, filters: pc.Expression | None = None
    ) -> pa.Table:
        """Rows of a file, in its order.

        Raises:
            ArchiveError: it can't be read.
        """
        path = self._path / file.name
        try:
            return parquet.read_table(
                path,
                columns=columns and list(columns),
                filters=filters,
                partitioning=None,
                use_threads=False,
                page_checksum_verification=True,
            )
        except (OSError, pa.ArrowException) as error:
            why = f"{path} can't be read: {error}"
            raise ArchiveError(f"{why}; without the file, the rest of trainer.archive_dir can be used") from error

    def commit(self, manifest: Manifest) -> None:
        """Makes `manifest` what counts, in one step.

        Raises:
            OSError: it doesn't count; what did before does so still.
            ArchiveError: it counts, but may not after a power failure.
        """
        # Step 1. The names of the new files are safe.
        kept = {file.name for file in self.manifest.files}
        for folder in sorted({(self._path / file.name).parent for file in manifest.files if file.name not in kept}):
            _sync(folder)
        # Step 2. They count, and what they replace doesn't.
        self._note(manifest)
        # Step 3. That is deleted.
        self._clear()

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArchiveError(
                f"trainer.archive_dir {self._path} is used by another trainer: each needs a folder of its own"
            ) from None

    def _open(self, topic: str, topic_id: str | None) -> None:
        path = self._path / _MANIFEST
        # The number of no file that was ever named: a file left by who died must not be taken for a later one.
        self._number = max((int(match["number"]) for _, match in self._found()), default=0)
        if not path.exists():
            if self._number:
                raise ArchiveError(
                    f"{path} is missing, and there are files beside it: move them away, or bring it back"
                )
            self._note(Manifest(topic=topic, topic_id=topic_id))
            return
        try:
            self.manifest = Manifest.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ArchiveError(
                f"{path} is damaged: move trainer.archive_dir away, or bring it back: {error}"
            ) from error
        had = self.manifest.topic, self.manifest.topic_id
        same_id = topic_id is None or had[1] is None or topic_id == had[1]
        if had[0] != topic or not same_id:
            raise ArchiveError(
                f"trainer.archive_dir {self._path} is of topic {_shown(*had)}, the log is {_shown(topic, topic_id)}:"
                " move it away, or name another folder"
            )
        found = {path for path, _ in self._found()}
        gone = [file for file in self.manifest.files if self._path / file.name not in found]
        for file in gone:
            _log.warning("archive %s: %s is gone, and %d events with it", self._path, file.name, file.rows)
        there = tuple(file for file in self.manifest.files if file not in gone)
        self._note(self.manifest.model_copy(update={"files": there, "topic_id": topic_id or had[1]}))
        self._clear()

    def _note(self, manifest: Manifest) -> None:
        path = self._path / _MANIFEST
        writing = path.with_name(f"{path.name}.writing")
        with open_private(writing) as file:
            file.write(manifest.model_dump_json().encode())
        _sync(writing)
        _sync(self._path)  # new days
        writing.replace(path)
        self.manifest = manifest
        try:
            _sync(self._path)
        except OSError as error:
            raise ArchiveError(f"{path} can't be written through to the disk: {error}") from error

    def _clear(self) -> None:
        """Deletes what doesn't count, and days without a file."""
        counts = {file.name for file in self.manifest.files}
        for path, _ in self._found():
            if path.relative_to(self._path).as_posix() not in counts:
                try:
                    path.unlink()
                except OSError as error:
                    _log.warning(
                        "archive: %s counts no more and can't be deleted, the next change tries: %s", path, error
                    )
                with suppress(OSError):
                    path.parent.rmdir()

    def _found(self) -> list[tuple[Path, re.Match[str]]]:
        """All files that this class has named, whether they count or not; others are let be, and so are links."""
        paths = [
            path
            for path in sorted(self._path.glob("day=*/*"))
            if path.is_file() and not path.is_symlink() and not path.parent.is_symlink()
        ]
        matches = ((path, _OURS.fullmatch(path.relative_to(self._path).as_posix())) for path in paths)
        return [(path, match) for path, match in matches if match]


def _shown(topic: str, topic_id: str | None) -> str:
    return f"{topic!r} (id {topic_id})" if topic_id else repr(topic)


def _sync(path: Path) -> None:
    """Waits until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
