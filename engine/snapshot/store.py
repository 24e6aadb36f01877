"""The folder of snapshots: a new one appears whole, old ones go, and the best that can be used is found.

Several engines may share the folder. Each writes and deletes its own snapshots only, and restores from any. A snapshot
that can't be used stays where it is, for people: see `losses`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from engine.config import SnapshotConfig
from engine.events.source import LogIdentity, LogRange, Partition
from engine.private_files import make_new_private_folder, make_private_folder, warn_of_others
from engine.snapshot.checks import check_slice
from engine.snapshot.conversion import OtherSettingsError, converted
from engine.snapshot.files import DamagedError, sync_folder
from engine.snapshot.fit import catalog_misfit, slice_misfit
from engine.snapshot.folders import (
    LAST_SEQUENCE,
    SnapshotFolder,
    named_like_snapshots,
    needed,
    next_sequence,
    same_log,
    snapshot_folders,
    strange,
)
from engine.snapshot.format import read_catalog, read_slice, write_snapshot
from engine.snapshot.losses import Loss, SnapshotError
from engine.snapshot.manifest import Manifest, OtherFormatError, read_manifest
from engine.snapshot.settings import as_json, catalog_refused, changes, content_kept, slices_refused
from engine.state.copying import SavedCatalog, SavedState
from engine.state.slice import SavedSlice

__all__ = ["SnapshotError", "SnapshotStore"]

log = logging.getLogger(__name__)

_ENGINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_NAMED = (DamagedError, OtherFormatError, OtherSettingsError, OSError)  # these say themselves what is wrong
_UNUSABLE = (*_NAMED, ValueError, LookupError, TypeError, AttributeError, OverflowError)

T = TypeVar("T")
_Found = tuple[SnapshotFolder, Manifest]


class SnapshotStore:
    """Snapshots of one engine, in a folder that others may share.

    `write` may run in another thread than the rest.

    Args:
        engine: its name there: letters, digits, ".", "_" and "-"; the same after a restart, and no other engine's.
        settings: what snapshots are taken under, see `settings.fingerprint`.
        identity: of the log that they are taken of; those of another log are not used.

    Raises:
        SnapshotError: the folder can't be made or written.
    """

    def __init__(
        self,
        config: SnapshotConfig,
        engine: str,
        settings: Mapping[str, Any],
        identity: LogIdentity | None = None,
    ) -> None:
        if config.dir is None:
            raise SnapshotError("snapshot.dir must name a folder, got none")
        if not _ENGINE.fullmatch(engine):
            raise SnapshotError(f"an engine's name in snapshot.dir must match {_ENGINE.pattern}, got {engine!r}")
        self._dir = config.dir
        self._keep = config.keep
        self._engine = engine
        self._settings = as_json(settings)
        self._identity = identity or LogIdentity()
        self._events_topic: str = self._settings["kafka.events_topic"]
        self._items_topic: str = self._settings["kafka.items_topic"]
        self._told: set[tuple[str, str]] = set()  # lines that were logged of what lies in the folder
        self._skipped: dict[tuple[str, Path], str] = {}  # by part and snapshot, why it could not be used
        try:
            self._make_dir()
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
            self._make_dir()
            for folder in snapshot_folders(self._dir):
                if folder.engine == self._engine and folder.unfinished:
                    shutil.rmtree(folder.path)
            # Step 2: write under a name that nobody reads, through to the disk.
            new = SnapshotFolder.named(self._dir, self._engine, next_sequence(self._dir, self._engine))
            if new.sequence > LAST_SEQUENCE:
                raise SnapshotError(
                    f"no snapshot can follow {self._engine}-{LAST_SEQUENCE} in snapshot.dir {self._dir}: move that one"
                    " away, or give the engine another name (snapshot.engine)"
                )
            writing = new.writing
            make_new_private_folder(writing)
            skipped = self._skipped_names()
            write_snapshot(writing, saved, self._engine, self._settings, self._identity, skipped)
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
            self._delete_old(skipped)
        except OSError as error:
            log.warning("old snapshots in snapshot.dir %s can't be deleted: %s", self._dir, error)
        return new.path

    def newest(self, partition: int, log_range: LogRange) -> SavedSlice | None:
        """The slice of a partition that holds most and can be used; what was skipped for it is logged.

        Args:
            log_range: what the log holds of the partition; a slice's position must lie within.
        """

        def read(path: Path, manifest: Manifest) -> SavedSlice:
            saved = read_slice(path, manifest, partition)
            check_slice(saved, manifest.settings)
            self._say_changes(path, manifest)
            return converted(saved, manifest.settings, self._settings)

        return self._best(
            _part(partition),
            lambda manifest: partition in manifest.slices,
            lambda manifest: (-manifest.slices[partition].began, manifest.positions[partition]),
            lambda manifest: slice_misfit(manifest, partition, self._settings, self._identity, log_range),
            read,
        )

    def newest_catalog(self, log_ranges: Mapping[Partition, LogRange]) -> SavedCatalog | None:
        """The catalog that is furthest and can be used, as `newest`.

        Args:
            log_ranges: what the log holds of each partition of the items topic.
        """

        def read(path: Path, manifest: Manifest) -> SavedCatalog:
            saved = read_catalog(path, manifest)
            if content_kept(manifest.settings, self._settings):
                return saved
            # It is encoded anew. Features of another length say nothing: the item has none until it is sent again.
            width = self._settings["state.features_dim"]
            items = [item if len(item.features) in (0, width) else replace(item, features=()) for item in saved.items]
            return replace(saved, items=items, content=None, rows=None)

        return self._best(
            _CATALOG,
            lambda manifest: True,
            lambda manifest: (0, sum(manifest.catalog_positions.values())),
            lambda manifest: catalog_misfit(manifest, self._settings, self._identity, log_ranges),
            read,
        )

    def lost(self, partition: int, log_range: LogRange) -> Loss | None:
        """The loss if a partition begins with the log, after `newest` has found nothing; None where there is none."""
        part = _part(partition)
        losses = list(self._unreadable(part)) if log_range.begin > 0 else []
        for folder, manifest in self._readable():
            held = manifest.slices.get(partition)
            if held is None or not (held.events or held.users):
                continue
            # The log tells all of it again where it is the same log, and reaches as far back and as far on.
            same = same_log(manifest.log, self._identity, self._events_topic)
            topic = manifest.settings.get("kafka.events_topic")
            if not same or topic != self._events_topic or _gone(held.began, held.position, log_range):
                reason = self._skipped.get((part, folder.path), "it can't be used")
                losses.append(Loss(part, folder.path, reason, manifest.created, held.users, held.events))
        return max(losses, key=_size, default=None)

    def lost_catalog(self, log_ranges: Mapping[Partition, LogRange]) -> Loss | None:
        """`lost` of the catalog, after `newest_catalog` found nothing to use."""
        losses = list(self._unreadable(_CATALOG)) if any(held.begin > 0 for held in log_ranges.values()) else []
        for folder, manifest in self._readable():
            if manifest.catalog.rows == 0:
                continue
            gone = any(
                _gone(manifest.catalog_began.get(where, 0), position, log_ranges.get(where, LogRange(0, 0)))
                for where, position in manifest.catalog_positions.items()
            )
            same = same_log(manifest.log, self._identity, self._items_topic)
            if gone or not same or manifest.settings.get("kafka.items_topic") != self._items_topic:
                reason = self._skipped.get((_CATALOG, folder.path), "it can't be used")
                losses.append(Loss(_CATALOG, folder.path, reason, manifest.created, items=manifest.catalog.rows))
        return max(losses, key=_size, default=None)

    def _make_dir(self) -> None:
        make_private_folder(self._dir)
        warn_of_others(self._dir)

    def _best(
        self,
        part: str,
        has: Callable[[Manifest], bool],
        worth: Callable[[Manifest], tuple[int, int]],
        wrong: Callable[[Manifest], str | None],
        read: Callable[[Path, Manifest], T],
    ) -> T | None:
        """Reads the part that is worth most of those that can be used."""
        found = [one for one in self._readable() if has(one[1])]
        for folder, manifest in sorted(found, key=lambda one: (worth(one[1]), one[0].sequence), reverse=True):
            try:
                reason = wrong(manifest)
                if reason is None:
                    saved = read(folder.path, manifest)
                    log.info("snapshot %s: %s from position %d on", folder.path, part, worth(manifest)[1])
                    return saved
            except _UNUSABLE as error:
                if not folder.path.exists():
                    # Its engine has deleted it meanwhile, so there is a newer one.
                    return self._best(part, has, worth, wrong, read)
                reason = _said(error)
            self._skipped[part, folder.path] = reason
            self._say_once(folder, f"skipped for {part}: {reason}")
        return None

    def _readable(self) -> Iterator[_Found]:
        """Snapshots of all engines whose manifest is good; what else lies there under such a name is logged once."""
        for folder, found in self._looked_at():
            if isinstance(found, Manifest):
                yield folder, found
            elif folder.path.is_symlink() or folder.path.exists():  # Otherwise its engine has just deleted it.
                self._say_once(folder, f"skipped: {found}")

    def _unreadable(self, part: str) -> Iterator[Loss]:
        for folder, found in self._looked_at():
            if not isinstance(found, Manifest) and strange(folder) is None and folder.path.exists():
                yield Loss(part, folder.path, found, users=None, events=None, items=None)

    def _looked_at(self) -> list[tuple[SnapshotFolder, Manifest | str]]:
        """Everything with a whole snapshot's name, with its manifest or with the fault that it has."""
        try:
            folders = [folder for folder in named_like_snapshots(self._dir) if not folder.unfinished]
        except OSError as error:
            log.error("no snapshot is used, snapshot.dir %s can't be read: %s", self._dir, error)
            return []
        return [(folder, strange(folder) or _manifest(folder)) for folder in folders]

    def _say_changes(self, path: Path, manifest: Manifest) -> None:
        for line in changes(manifest.settings, self._settings):
            if (path.name, line) not in self._told:
                self._told.add((path.name, line))
                log.info("snapshot %s: %s", path, line)

    def _say_once(self, folder: SnapshotFolder, line: str) -> None:
        if (folder.path.name, line) not in self._told:
            self._told.add((folder.path.name, line))
            log.warning("snapshot %s %s", folder.path, line)

    def _skipped_names(self) -> set[str]:
        """Snapshots of this engine that it could not use, in this run or in those before."""
        found = {folder.path: manifest for folder, manifest in self._looked_at() if folder.engine == self._engine}
        names = {path.name for _, path in self._skipped}
        for manifest in found.values():
            names |= manifest.skipped if isinstance(manifest, Manifest) else set()
        return names & {path.name for path in found}

    def _delete_old(self, skipped: Set[str]) -> None:
        """Keeps the newest of this engine, each that alone holds some of the past, and all that can't be used."""
        manifests = {
            folder: found for folder, found in self._looked_at() if isinstance(found, Manifest) and self._usable(found)
        }
        own = sorted((one for one in manifests if one.engine == self._engine), key=lambda one: one.sequence)
        for folder in own[: -self._keep]:
            if folder.path.name not in skipped and not needed(folder, manifests, self._events_topic, self._items_topic):
                del manifests[folder]
                folder.delete()

    def _usable(self, manifest: Manifest) -> bool:
        """Whether a snapshot is one of this log, and of settings that can be converted."""
        try:
            refused = slices_refused(manifest.settings, self._settings) or catalog_refused(
                manifest.settings, self._settings
            )
        except _UNUSABLE:
            return False
        topics = (self._events_topic, self._items_topic)
        return refused is None and all(same_log(manifest.log, self._identity, topic) for topic in topics)


_CATALOG = "the catalog"


def _part(partition: int) -> str:
    return f"partition {partition} of the events"


def _manifest(folder: SnapshotFolder) -> Manifest | str:
    try:
        return read_manifest(folder.path)
    except _UNUSABLE as error:
        return _said(error)


def _gone(began: int, position: int, log_range: LogRange) -> bool:
    """Whether the log can't tell all from `began` to `position` again."""
    return position > log_range.end or (began < log_range.begin and began < position)


def _size(loss: Loss) -> tuple[int, int]:
    return (loss.events or 0) + (loss.items or 0), loss.users or 0


def _said(error: Exception) -> str:
    text = str(error) if isinstance(error, _NAMED) else f"makes no sense: {error!r}"
    return " ".join(text.split())[:400]
