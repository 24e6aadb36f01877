"""Keeps what was folded of the events topic, and gives it back once the broker has deleted it.

Shapes: E events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.config import EventsConfig
from engine.events.batch import Decoded, EventBatch
from engine.events.source import Assignment
from engine.state.folded import Folded
from engine.state.subjects import subject_key
from trainer.archive.folder import ArchivedFile, ArchiveError, ArchiveFolder, Position
from trainer.archive.rows import WHOSE, rows_of, to_events, to_table

_DAY_MS = 86_400_000
_FLUSH_ROWS = 50_000
_FLUSH_S = 60.0  # nothing is lost before: the broker still has it
_MOST_PENDING = 4 * _FLUSH_ROWS  # rows that wait while they can't be written
_MOST_ROWS = 2**18  # of a file that others are joined into
_WINDOW = 2**17  # rows given back at once

_log = logging.getLogger(__name__)


class Archive:
    """The events that count, each once, however often the process dies and reads the log again.

    An event is known by its partition and offset: what lies below the offset up to which its partition is archived is
    not taken again. That offset is written in the same step as the events below it. Dead letters, and what the fold
    takes for a repeat, are not archived.

    Not safe to use from two threads.

    Args:
        days: what is older than so many whole days (UTC, by event time) is deleted.
        topic: of the events.
        topic_id: the broker's id of it, which tells a topic from one that was made anew; None where it gives none.
        clock: seconds since 1970; replaced by tests.

    Raises:
        ArchiveError: see `ArchiveFolder`.
    """

    def __init__(
        self,
        path: Path,
        days: int,
        events: EventsConfig,
        topic: str,
        topic_id: str | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._days, self._config, self._topic, self._clock = path, days, events, topic, clock
        self._folder = ArchiveFolder(path, topic, topic_id)
        manifest = self._folder.manifest
        self._positions = dict(manifest.positions)  # what waits to be flushed included, as all below
        self._next_ordinal = manifest.next_ordinal
        self._pending: list[pa.Table] = []
        self._flush_at_s = 0.0  # by time.monotonic
        self._failed = False  # the last flush
        files = manifest.files
        rows, days_held = sum(file.rows for file in files), len({file.day for file in files})
        _log.info("archive %s: %d events of %d days in %d files", path, rows, days_held, len(files))

    @property
    def pending(self) -> int:
        """Rows that wait to be flushed."""
        return sum(map(len, self._pending))

    @property
    def rows(self) -> int:
        """Archived events, those included that the log still has."""
        return sum(file.rows for file in self._folder.manifest.files)

    def size_bytes(self) -> int:
        """Bytes of the files that count; from any thread."""
        return self._folder.size_bytes()

    def replay(self, assignment: Assignment) -> Iterator[Decoded]:
        """The archived events that the log no longer has, in the order in which they were read.

        Raises:
            ArchiveError: the log is another one than was archived, or a file can't be read.
        """
        begins: dict[int, int] = {}
        for (topic, partition), log_range in sorted(assignment.partitions.items()):
            if topic == self._topic:
                begins[partition] = log_range.begin
                self._check(partition, log_range.begin, log_range.end)
        self.flush()
        begin = _by_partition(begins)
        files = sorted(self._folder.manifest.files, key=lambda file: file.first)
        for first in range(min((file.first for file in files), default=0), self._next_ordinal, _WINDOW):
            last = first + _WINDOW - 1
            within = (pc.field("ordinal") >= first) & (pc.field("ordinal") <= last)
            # Cheap where the log has everything still: row groups above are not even read.
            filters = within & (pc.field("offset") < max(begins.values(), default=0))
            parts = [
                self._folder.read(file, filters=filters) for file in files if file.first <= last and file.last >= first
            ]
            if not parts:
                continue
            events = to_events(pa.concat_tables(parts).sort_by("ordinal"), self._config)
            events = events.select(np.flatnonzero(events.offset < begin(events.partition)))
            if len(events):
                positions = zip(events.partition.tolist(), events.offset.tolist(), strict=True)
                yield Decoded(events, (), (), {(self._topic, partition): offset + 1 for partition, offset in positions})

    def add(self, batch: Decoded, folded: Folded) -> None:
        """Takes what the fold took of a batch; subjects that it forgot leave all files before this returns.

        Raises:
            ArchiveError: the log is another one than was archived, or a subject can't be removed: then nothing of the
                batch is archived, so that it is read again.
        """
        events = batch.events
        self._check_known(events)
        counted = np.sort(np.concatenate([part.numpy() for part in (folded.event, folded.relation, folded.forgot)]))
        end = _by_partition({partition: position.end for partition, position in self._positions.items()})
        new = events.select(counted[events.offset[counted] >= end(events.partition[counted])])
        table = to_table(new, self._next_ordinal, self._config)
        if new.forget.any():
            # In log order, so the last of a subject's in a partition is what counts.
            places = {
                (subject_key(new.user_id[at], new.session_id[at]), int(new.partition[at])): int(new.offset[at])
                for at in np.flatnonzero(new.forget).tolist()
            }
            self._purge(places)
            table = table.filter(pa.array(~rows_of(table, places)))
        self._next_ordinal += len(new)
        table = table.filter(pc.greater_equal(table["time_ms"], self._oldest_day() * _DAY_MS))
        if len(table):
            if not self._pending:
                self._flush_at_s = time.monotonic() + _FLUSH_S
            self._pending.append(table)
        self._advance(new, batch.positions)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Flushes what is enough or has waited, and deletes days that are too old; tries again later where it can't.

        Raises:
            ArchiveError: it couldn't for so long that too much waits, or a file can't be read.
        """
        enough = self.pending >= (_MOST_PENDING if self._failed else _FLUSH_ROWS)
        waited = self._pending and time.monotonic() >= self._flush_at_s
        if not (enough or waited or (self._outdated() and not self._failed)):
            return
        try:
            self._flush()
        except OSError as error:
            if enough and self._failed:
                raise self._unwritable(error) from error
            _log.warning("archive %s can't be written, %d events wait: %s", self._path, self.pending, error)
            self._failed = True
            self._flush_at_s = time.monotonic() + _FLUSH_S

    def flush(self) -> None:
        """Writes all that waits.

        Raises:
            ArchiveError: it can't be written, or a file that it would be joined to can't be read.
        """
        try:
            self._flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Lets go of the folder. What was not flushed will be read from the log again."""
        self._folder.close()

    def _flush(self) -> None:
        files = list(self._folder.manifest.files)
        if self._pending:
            for day, rows in _by_day(pa.concat_tables(self._pending)):
                files.append(self._written(day, rows, files))
        self._commit(files)
        self._pending, self._failed = [], False

    def _written(self, day: str, rows: pa.Table, files: list[ArchivedFile]) -> ArchivedFile:
        """A file of these rows, joined to those before it of its day that have no more: they leave `files`.

        So every row is written a logarithmic number of times, and a day has a logarithmic number of small files.
        """
        parts = [rows]
        count = len(rows)
        for file in [file for file in reversed(files) if file.day == day]:
            if file.rows > count or file.rows + count > _MOST_ROWS:
                break
            parts.insert(0, self._folder.read(file))
            count += file.rows
            files.remove(file)
        return self._folder.write(day, pa.concat_tables(parts))

    def _purge(self, places: Mapping[tuple[str, int], int]) -> None:
        """Removes the rows of these subjects from all files, in one step; see `rows_of`."""
        pending = [table.filter(pa.array(~rows_of(table, places))) for table in self._pending]
        self._pending = [table for table in pending if len(table)]
        files: list[ArchivedFile] = []
        removed = rewritten = 0
        try:
            for file in self._folder.manifest.files:
                theirs = rows_of(self._folder.read(file, WHOSE), places)
                if not theirs.any():
                    files.append(file)
                    continue
                kept = self._folder.read(file).filter(pa.array(~theirs))
                files += [self._folder.write(file.day, kept)] if len(kept) else []
                removed += int(theirs.sum())
                rewritten += 1
            if rewritten:
                self._folder.commit(self._folder.manifest.model_copy(update={"files": tuple(files)}))
        except OSError as error:
            raise ArchiveError(
                f"who is to be forgotten can't leave trainer.archive_dir {self._path}: {error}"
            ) from error
        _log.info("archive %s: forgot %d events in %d files", self._path, removed, rewritten)

    def _commit(self, files: list[ArchivedFile]) -> None:
        oldest = _day_name(self._oldest_day())
        outdated = {file.day for file in files if file.day < oldest}
        manifest = self._folder.manifest.model_copy(
            update={
                "next_ordinal": self._next_ordinal,
                "positions": dict(self._positions),
                "files": tuple(file for file in files if file.day not in outdated),
            }
        )
        if manifest != self._folder.manifest:
            self._folder.commit(manifest)
        for day in sorted(outdated):
            _log.info("archive %s: day %s is older than trainer.archive_days=%d, deleted", self._path, day, self._days)

    def _outdated(self) -> bool:
        oldest = _day_name(self._oldest_day())
        return any(file.day < oldest for file in self._folder.manifest.files)

    def _oldest_day(self) -> int:
        """The first day that is kept, counted from 1970."""
        return int(self._clock() * 1000) // _DAY_MS - self._days

    def _advance(self, new: EventBatch, positions: Mapping[tuple[str, int], int]) -> None:
        """Notes how far each partition is archived."""
        last = dict(
            zip(new.partition.tolist(), zip(new.offset.tolist(), new.timestamp_ms.tolist(), strict=True), strict=True)
        )
        for (topic, partition), end in positions.items():
            before = self._positions.get(partition, Position(end=0))
            if topic == self._topic and end > before.end:
                offset, timestamp_ms = last.get(partition, (before.last_offset, before.last_timestamp_ms))
                self._positions[partition] = Position(end=end, last_offset=offset, last_timestamp_ms=timestamp_ms)

    def _check(self, partition: int, begin: int, end: int) -> None:
        """That a partition of the log can be the one that is archived, and follows it."""
        archived = self._positions.get(partition)
        if archived is None:
            return
        where = f"{self._topic}[{partition}]"
        if archived.end > end:
            raise self._other_log(f"{where} ends at offset {end}, the archive at {archived.end}")
        if archived.end < begin:
            _log.warning(
                "archive %s: offsets %d to %d of %s were deleted from the log before they were read;"
                " who was forgotten there must be forgotten again", self._path, archived.end, begin - 1, where,
            )  # fmt: skip

    def _check_known(self, events: EventBatch) -> None:
        """That what was archived last is in the log what it was, where that comes by."""
        known = self._positions.items()
        offset = _by_partition({partition: position.last_offset for partition, position in known}, -1)
        timestamp_ms = _by_partition({partition: position.last_timestamp_ms for partition, position in known}, -1)
        comes_by = np.flatnonzero(events.offset == offset(events.partition))
        differs = events.timestamp_ms[comes_by] != timestamp_ms(events.partition[comes_by])
        for at in comes_by[differs].tolist():
            where = f"{self._topic}[{events.partition[at]}]"
            raise self._other_log(f"the record of {where} at offset {events.offset[at]} is not the one archived")

    def _unwritable(self, error: OSError) -> ArchiveError:
        return ArchiveError(f"trainer.archive_dir {self._path} can't be written: {error}")

    def _other_log(self, why: str) -> ArchiveError:
        return ArchiveError(
            f"trainer.archive_dir {self._path} is of another log, or the log lost records: {why}."
            " Move it away, or name another folder"
        )


def _by_partition(numbers: Mapping[int, int], default: int = 0) -> Callable[[NDArray[np.int32]], NDArray[np.int64]]:
    """A number of each partition, looked up for [E] partitions at once."""
    table = np.full(max(numbers, default=-1) + 2, default, np.int64)
    table[list(numbers)] = list(numbers.values())
    return lambda partition: table[np.minimum(partition, len(table) - 1)]


def _by_day(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each day by event time, in their order."""
    day = rows["time_ms"].to_numpy() // _DAY_MS
    order = np.argsort(day, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(day[order])) + 1):
        yield _day_name(int(day[at[0]])), rows.take(at)


def _day_name(day: int) -> str:
    return str(np.datetime64(day, "D"))
