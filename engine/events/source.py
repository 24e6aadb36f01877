"""Where records come from: a protocol, and an in-memory log that ends, stalls and fails on cue."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.events.batch import Record

Partition = tuple[str, int]  # topic, number


@dataclass(frozen=True)
class LogRange:
    """The offsets of a partition when it was assigned: the first one, and one past the last stable one."""

    begin: int
    end: int


@dataclass(frozen=True)
class LogIdentity:
    """The names by which a log is told from another of the same topics, as far as the broker says them.

    Attributes:
        cluster_id: None where the broker gives none.
        topic_ids: of each topic; a topic that is made anew has another id. Absent where the broker gives none.
        began_ms: the time of the first event, where the broker gives its topic no id and still has that event.
    """

    cluster_id: str | None = None
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    began_ms: int | None = None


@dataclass(frozen=True)
class Assignment:
    """The partitions that this process reads.

    Attributes:
        partitions: what the log held of each.
        totals: how many partitions each topic has, those of other processes included.
        identity: of the log that was asked.
        deletions_from: of a partition of the items topic, the offset from which on no tombstone can have been removed
            yet; its end where that is not known.
    """

    partitions: Mapping[Partition, LogRange]
    totals: Mapping[str, int]
    identity: LogIdentity = LogIdentity()
    deletions_from: Mapping[Partition, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LogHealth:
    """How the log answers.

    Attributes:
        age_s: since a broker last answered anything; lists may be as old as this without anybody knowing.
        problems: settings of topics that will lose data or keep engines from sharing; each is logged when it begins.
    """

    age_s: float = 0.0
    problems: int = 0


class EventSource(Protocol):
    """A log read in order, partition by partition.

    Its reader asks for the `assignment`, says by `start` from where to read it, and polls. Whenever the assignment
    changes, everything read ahead is dropped and all partitions wait to be started again.
    """

    def assignment(self) -> Assignment | None:
        """The partitions to read: a new object after every change, the same one until then; None while a group forms.

        After it has returned a new one, `poll` returns only records that were read after `start`.
        """

    def start(self, positions: Mapping[Partition, int]) -> None:
        """Reads the assigned partitions from these offsets on; all of the items topic comes before any event."""

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Tells the group that everything before these offsets is safe in a snapshot; does not wait for the answer."""

    def poll(self, timeout_s: float) -> Sequence[Record]:
        """Returns the next records, or none after `timeout_s` or an earlier `wake`.

        Raises:
            SourceError: the log can't be read any more and retrying won't help.
        """

    def wake(self) -> None:
        """Ends a running `poll` early, from another thread."""

    def lag(self) -> int:
        """Records in the log, as last known, that `poll` has not returned yet."""

    def lag_by_partition(self) -> Mapping[tuple[str, int], int]:
        """`lag` of each (topic, partition)."""

    def caught_up(self) -> bool:
        """True once `poll` has returned every record that the log held when the assignment was made.

        A partition that is held counts as if it had been read: the others serve without it.
        """

    def stable_offsets(self) -> Mapping[Partition, int]:
        """One past the last offset of each partition that may be read, as last known: no open transaction before it."""

    def held(self) -> Mapping[Partition, str]:
        """The partitions that can't be read further for now, and why."""

    def health(self) -> LogHealth:
        """How the log answers, now."""

    def close(self) -> None:
        """Stops reading. Safe to call twice."""


class SourceError(RuntimeError):
    """The log can't be read; the message says what to check."""


class BrokerAway(SourceError):
    """The log can't be read now, because no broker answers or one is too slow; it may answer later."""


def starting_offsets(assignment: Assignment, positions: Mapping[Partition, int]) -> dict[Partition, int]:
    """Where to read each assigned partition from; at its beginning where no position is given.

    Raises:
        SourceError: a position lies outside the log.
    """
    offsets = {}
    for partition, log_range in assignment.partitions.items():
        offset = positions.get(partition, log_range.begin)
        if not log_range.begin <= offset <= log_range.end:
            where = f"{partition[0]}[{partition[1]}]"
            what = "its retention" if offset < log_range.begin else "whether the topic was made anew"
            raise SourceError(
                f"the log of {where} holds offsets {log_range.begin} to {log_range.end}, can't be read from {offset}:"
                f" check {what}, or start without the snapshot"
            )
        offsets[partition] = offset
    return offsets


def start_at_beginning(source: EventSource) -> Assignment | None:
    """Starts every assigned partition at its first record; returns the assignment, or None where there is none yet."""
    assignment = source.assignment()
    if assignment is not None:
        source.start({partition: log_range.begin for partition, log_range in assignment.partitions.items()})
    return assignment


class MemorySource:
    """A log in memory, for tests and benchmarks that need no broker; an `EventSource`.

    It keeps all that it was given, so it can be started anywhere again, and returns it batch by batch, in the order
    given. Until the first `reassign` it is started at its beginning, and partitions that `append` brings join in.

    Args:
        items_topic: its records come before all others, as far as the log has them at the assignment; None: no topic's.

    Attributes:
        committed: the position last committed of each partition.
    """

    def __init__(self, batches: Sequence[Sequence[Record]] = (), *, items_topic: str | None = None) -> None:
        self.committed: dict[Partition, int] = {}
        self._log: list[Sequence[Record]] = []
        self._ends: dict[Partition, int] = {}
        self._items_topic = items_topic
        self._failure: SourceError | None = None
        self._stalled = False
        self._woken = False
        self._ready = threading.Condition()
        self._shared = False  # only what is assigned is read
        self._partitions: set[Partition] = set()  # all known
        for batch in batches:
            self._keep(batch)
        self._assignment: Assignment | None = self._assign(None)
        self._told: Assignment | None = self._assignment  # as `assignment` returned it last
        self._pending: list[Sequence[Record]] | None = None  # batches to return; None until it is started
        self._due = 0  # records to return until caught up
        self._start({})

    def append(self, batch: Sequence[Record]) -> None:
        """One more batch for the next polls, from any thread."""
        with self._ready:
            self._keep(batch)
            if self._pending is not None:
                self._pending += filter(None, [self._select(batch, {})])
            self._ready.notify()

    def reassign(self, partitions: Iterable[Partition] | None) -> None:
        """Makes these the ones to read, as a group does, or none with None until the next call.

        What was not returned yet is dropped, and nothing more comes before `start`.
        """
        with self._ready:
            self._shared = True
            self._assignment = None if partitions is None else self._assign(set(partitions))
            self._pending = None
            self._woken = True
            self._ready.notify()

    def fail(self, error: SourceError) -> None:
        """Makes the poll after the batches at hand raise."""
        with self._ready:
            self._failure = error
            self._ready.notify()

    def stall(self, stalled: bool = True) -> None:
        """Holds every batch back until `stall(False)`."""
        with self._ready:
            self._stalled = stalled
            self._ready.notify()

    def assignment(self) -> Assignment | None:
        with self._ready:
            self._told = self._assignment
            return self._told

    def start(self, positions: Mapping[Partition, int]) -> None:
        """See `EventSource`; ignored where the assignment has changed since it was told."""
        with self._ready:
            if self._told is not None and self._told is self._assignment:
                self._start(positions)

    def commit(self, positions: Mapping[Partition, int]) -> None:
        with self._ready:
            self.committed |= positions

    def poll(self, timeout_s: float) -> Sequence[Record]:
        with self._ready:
            self._ready.wait_for(
                lambda: self._woken or self._failure or (self._pending and not self._stalled), timeout_s
            )
            self._woken = False
            if self._pending and not self._stalled:
                batch = self._pending.pop(0)
                self._due -= len(batch)
                return batch
            if self._failure:
                raise self._failure
            return ()

    def wake(self) -> None:
        with self._ready:
            self._woken = True
            self._ready.notify()

    def lag(self) -> int:
        with self._ready:
            return sum(map(len, self._pending or ()))

    def lag_by_partition(self) -> Mapping[Partition, int]:
        with self._ready:
            return Counter((record.topic, record.partition) for batch in self._pending or () for record in batch)

    def caught_up(self) -> bool:
        with self._ready:
            return self._pending is not None and self._due <= 0

    def health(self) -> LogHealth:
        return LogHealth()

    def stable_offsets(self) -> Mapping[Partition, int]:
        with self._ready:
            return dict(self._ends)

    def held(self) -> Mapping[Partition, str]:
        return {}

    def close(self) -> None:
        self.wake()

    def _keep(self, batch: Sequence[Record]) -> None:
        self._log.append(batch)
        self._ends |= {(record.topic, record.partition): record.next_offset for record in batch}

    def _assign(self, partitions: set[Partition] | None) -> Assignment:
        """An assignment of these partitions, or of all, with what the log holds of them now."""
        offsets: dict[Partition, list[int]] = {partition: [] for partition in partitions or ()}
        for batch in self._log:
            for record in batch:
                offsets.setdefault((record.topic, record.partition), []).append(record.offset)
        self._partitions |= offsets.keys()
        ranges = {
            partition: LogRange(min(found), max(found) + 1) if found else LogRange(0, 0)
            for partition, found in offsets.items()
            if partitions is None or partition in partitions
        }
        return Assignment(ranges, Counter(topic for topic, _ in self._partitions))

    def _start(self, positions: Mapping[Partition, int]) -> None:
        assert self._assignment is not None
        ranges = self._assignment.partitions
        offsets = starting_offsets(self._assignment, positions)
        pending = [self._select(batch, offsets) for batch in self._log]
        if self._items_topic is not None:
            # Cut in two: what the log had of the catalog, and the rest.
            def early(record: Record) -> bool:
                partition = (record.topic, record.partition)
                return record.topic == self._items_topic and record.offset < ranges[partition].end

            pending = [
                *([record for record in batch if early(record)] for batch in pending),
                *([record for record in batch if not early(record)] for batch in pending),
            ]
        self._pending = [batch for batch in pending if len(batch)]
        self._due = sum(
            partition in ranges and record.offset < ranges[partition].end
            for batch in self._pending
            for record in batch
            for partition in [(record.topic, record.partition)]
        )

    def _select(self, batch: Sequence[Record], offsets: Mapping[Partition, int]) -> Sequence[Record]:
        """The records of a batch that are to be read; the batch itself where that is all of it."""
        assigned = self._assignment.partitions if self._assignment and self._shared else None
        kept = [
            record
            for record in batch
            if (assigned is None or (record.topic, record.partition) in assigned)
            and record.offset >= offsets.get((record.topic, record.partition), 0)
        ]
        return batch if len(kept) == len(batch) else kept
