"""The folder of snapshots: a new one appears whole, old ones go, and the best that can be used is found.

Several engines may share the folder. Each writes and deletes its own snapshots only, and restores from any.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from engine.config import SnapshotConfig
from engine.events.source import LogRange, Partition
from engine.snapshot.files import DamagedError, sync_folder
from engine.snapshot.folders import SnapshotFolder, needed, snapshot_folders
from engine.snapshot.format import (
    Manifest,
    OtherFormatError,
    read_catalog,
    read_manifest,
    read_slice,
    write_snapshot,
)
from engine.snapshot.settings import as_json, difference
from engine.state.copying import SavedCatalog, SavedState
from engine.state.slice import SavedSlice

log = logging.getLogger(__name__)

_ENGINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_NAMED = (DamagedError, OtherFormatError, OSError)  # these say themselves what is wrong
_UNUSABLE = (*_NAMED, ValueError, LookupError, TypeError)

T = TypeVar("T")


class SnapshotError(RuntimeError):
    """A snapshot can't be written; the message names the setting and the reason."""


class SnapshotStore:
    """Snapshots of one engine, in a folder that others may share.

    `write` may run in another thread than the rest.

    Args:
        engine: its name there: letters, digits, ".", "_" and "-"; the same after a restart, and no other engine's.
        settings: what a snapshot must have been taken under to be of use; see `settings.fingerprint`.

    Raises:
        SnapshotError: the folder can't be made or written.
    """

    def __init__(self, config: SnapshotConfig, engine: str, settings: Mapping[str, Any]) -> None:
        if config.dir is None:
            raise SnapshotError("snapshot.dir must name a folder, got none")
        if not _ENGINE.fullmatch(engine):
            raise SnapshotError(f"an engine's name in snapshot.dir must match {_ENGINE.pattern}, got {engine!r}")
        self._dir = config.dir
        self._keep = config.keep
        self._engine = engine
        self._settings = as_json(settings)
        self._told: set[str] = set()  # names of useless snapshots in the folder that a line was logged about
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SnapshotError(f"snapshot.dir {self._dir} can't be made: {error}") from error
        if not os.access(self._dir, os.R_OK | os.W_OK | os.X_OK):
            raise SnapshotError(f"snapshot.dir {self._dir} can't be written: check its owner and permissions")

    def write(self, saved: SavedState) -> Path:
        """Adds a snapshot, then deletes this engine's old ones; returns the new one's folder.

        Raises:
            SnapshotError: it can't be relied on that there is a new snapshot; the old ones are untouched, and nothing
                half-made is left that could be taken for whole.
        """
        writing: Path | None = None
        try:
            # Step 1: clear what an earlier run did not end.
            self._dir.mkdir(parents=True, exist_ok=True)
            own = [folder for folder in snapshot_folders(self._dir) if folder.engine == self._engine]
            for folder in own:
                if folder.unfinished:
                    shutil.rmtree(folder.path)
            # Step 2: write under a name that nobody reads, through to the disk.
            sequence = 1 + max((folder.sequence for folder in own), default=0)
            new = SnapshotFolder.named(self._dir, self._engine, sequence)
            writing = new.writing
            writing.mkdir()
            write_snapshot(writing, saved, self._engine, self._settings)
            # Step 3: make it appear.
            writing.replace(new.path)
            sync_folder(self._dir)
        except BaseException as error:
            if writing is not None:
                shutil.rmtree(writing, ignore_errors=True)
            if isinstance(error, OSError):
                raise SnapshotError(f"no snapshot could be written to snapshot.dir {self._dir}: {error}") from error
            raise
        # Step 4: only now the old ones go.
        try:
            self._delete_old()
        except OSError as error:
            log.warning("old snapshots in snapshot.dir %s can't be deleted: %s", self._dir, error)
        return new.path

    def newest(self, partition: int, log_range: LogRange) -> SavedSlice | None:
        """The slice of a partition that is furthest and can be used; what was skipped for it is logged.

        Args:
            log_range: what the log holds of the partition; a slice's position must lie within.
        """
        return self._best(
            f"partition {partition} of the events",
            lambda manifest: manifest.positions.get(partition),
            lambda manifest: _outside(manifest.positions[partition], log_range),
            lambda path, manifest: read_slice(path, manifest, partition),
        )

    def newest_catalog(self, log_ranges: Mapping[Partition, LogRange]) -> SavedCatalog | None:
        """The catalog that is furthest and can be used, as `newest`.

        Args:
            log_ranges: what the log holds of each partition of the items topic.
        """
        return self._best(
            "the catalog",
            lambda manifest: sum(manifest.catalog_positions.values()),
            lambda manifest: _catalog_outside(manifest.catalog_positions, log_ranges),
            read_catalog,
        )

    def _best(
        self,
        what: str,
        progress: Callable[[Manifest], int | None],
        outside: Callable[[Manifest], str | None],
        read: Callable[[Path, Manifest], T],
    ) -> T | None:
        """Reads the part with the most progress (None: not in this snapshot) that can be used."""
        found = []
        for folder, manifest in self._usable().items():
            position = progress(manifest)
            if position is not None:
                found.append((position, folder, manifest))
        for position, folder, manifest in sorted(found, key=lambda one: (one[0], one[1].sequence), reverse=True):
            wrong = outside(manifest)
            if wrong:
                log.warning("snapshot %s skipped for %s: %s", folder.path, what, wrong)
                continue
            try:
                part = read(folder.path, manifest)
            except _UNUSABLE as error:
                if not folder.path.exists():
                    # Its engine has deleted it meanwhile, so there is a newer one.
                    return self._best(what, progress, outside, read)
                log.error("snapshot %s skipped for %s: %s", folder.path, what, _said(error))
                continue
            log.info("snapshot %s: %s from position %d on", folder.path, what, position)
            return part
        return None

    def _usable(self) -> dict[SnapshotFolder, Manifest]:
        """Snapshots of all engines whose manifest is good and whose settings are ours; others are logged once."""
        try:
            folders = [folder for folder in snapshot_folders(self._dir) if not folder.unfinished]
        except OSError as error:
            log.error("no snapshot is used, snapshot.dir %s can't be read: %s", self._dir, error)
            return {}
        self._told &= {folder.path.name for folder in folders}
        usable = {}
        for folder in folders:
            manifest = self._manifest(folder)
            if isinstance(manifest, Manifest):
                usable[folder] = manifest
            elif folder.path.name not in self._told and folder.path.exists():  # else its engine has just deleted it
                self._told.add(folder.path.name)
                log.warning("snapshot %s skipped: %s", folder.path, manifest)
        return usable

    def _manifest(self, folder: SnapshotFolder) -> Manifest | str:
        """The manifest of a snapshot that can be used, or what is wrong with it."""
        try:
            manifest = read_manifest(folder.path)
            differs = difference(manifest.settings, self._settings)
        except _UNUSABLE as error:
            return _said(error)
        return manifest if differs is None else f"taken under other settings: {differs}"

    def _delete_old(self) -> None:
        """Keeps the newest of this engine, and each that is the last to hold some partition."""
        folders = [folder for folder in snapshot_folders(self._dir) if not folder.unfinished]
        old = [folder for folder in folders if folder.engine == self._engine][: -self._keep]
        if not old:
            return
        manifests = {folder: found for folder in folders if isinstance(found := self._manifest(folder), Manifest)}
        for folder in old:
            if not needed(folder, manifests):
                manifests.pop(folder, None)
                folder.delete()


def _outside(position: int, log_range: LogRange) -> str | None:
    """Why replay can't start at `position`; None where it can."""
    if position > log_range.end:
        return (
            f"its position {position} lies beyond the log's end {log_range.end}: the log was made anew or lost records"
        )
    if position < log_range.begin:
        return f"its position {position} lies below the log's begin {log_range.begin}: records in between are gone"
    return None


def _catalog_outside(positions: Mapping[Partition, int], log_ranges: Mapping[Partition, LogRange]) -> str | None:
    for (topic, partition), position in positions.items():
        log_range = log_ranges.get((topic, partition))
        wrong = "the log has no such partition" if log_range is None else _outside(position, log_range)
        if wrong:
            return f"{topic}[{partition}]: {wrong}"
    return None


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, _NAMED) else f"makes no sense: {error!r}"
