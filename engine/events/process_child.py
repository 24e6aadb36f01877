"""The child's side of `ProcessSource`: polls its source ahead and sends what it finds through a pipe."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from engine import collector
from engine.arenas import limit_arenas
from engine.events.records import Records
from engine.events.source import Assignment, BrokerAway, EventSource, LogHealth, Partition, SourceError
from engine.failures import log_thread_failures, told
from engine.log_output import log_to_stderr

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.1  # also how soon a change of the lag is told while nothing comes
_BEAT_S = 1.0  # between two words on how the log answers
_LOOK_S = 0.05  # how soon a new assignment is noticed while there is no room for records


@dataclass
class Room:
    """How many records, and how many bytes of keys and values, may still come; the last batch may exceed it."""

    records: int
    bytes: int

    @property
    def left(self) -> bool:
        return self.records > 0 and self.bytes > 0

    def holds(self, batch: Records) -> bool:
        return len(batch) <= self.records and batch.size_bytes <= self.bytes

    def take(self, batch: Records) -> None:
        self.records -= len(batch)
        self.bytes -= batch.size_bytes

    def give_back(self, records: int, size_bytes: int) -> None:
        self.records += records
        self.bytes += size_bytes


class Status(NamedTuple):
    """Where the source stands after all that was sent before."""

    lag: Mapping[Partition, int]
    caught_up: bool
    stable_offsets: Mapping[Partition, int]
    held: Mapping[Partition, str]


class Seen(NamedTuple):
    """The assignment changed."""

    assignment: Assignment | None
    status: Status


class Polled(NamedTuple):
    """Records, and how many starts came before they were read."""

    starts: int
    records: Records
    status: Status


class Beat(NamedTuple):
    """How the log answers, once a second: silence of this process is as bad as silence of the brokers."""

    health: LogHealth


class Failed(NamedTuple):
    """The last message: why no more records can come, and whether they may come to a source that is made later."""

    reason: str
    away: bool = False


def main() -> None:
    """Follows a source until the parent says "close" or is gone; the arguments are those of `process._start`."""
    pipe, parent, records, size_bytes = map(int, sys.argv[1:5])
    # The parent ends us: it is asked to stop in the same breath, and wants to finish first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with(parent)
    log_to_stderr(sys.argv[5], "json" if sys.argv[6] == "json" else "text")
    log_thread_failures()
    limit_arenas()
    collector.set_aside()
    # Every record is an object or several, in no cycle: looking for one took a tenth of the time.
    collector.collect_every(100_000)
    with Connection(pipe) as connection, suppress(BrokenPipeError):
        try:
            factory = connection.recv()
            with closing(factory()) as source:
                _Reader(connection, source, Room(records, size_bytes)).run()
        except SourceError as error:
            connection.send(Failed(str(error), isinstance(error, BrokerAway)))
        except (EOFError, BrokenPipeError):
            pass  # the parent is gone
        except (OSError, MemoryError) as error:
            connection.send(Failed(f"the process that reads the log failed: {told(error)}"))
        except Exception as error:
            log.exception("the process that reads the log failed")
            connection.send(Failed(f"the process that reads the log failed: {error!r}"))


def _die_with(parent: int) -> None:
    """Has Linux kill this process when its parent dies. Elsewhere the end of the pipe has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # A parent that died before the line above sends nothing any more.
    if os.getppid() != parent:
        sys.exit(1)


class _Reader:
    """Polls the source while there is room, between the parent's commands.

    Args:
        room: what the parent may hold; below that, one more batch is sent.
    """

    def __init__(self, pipe: Connection, source: EventSource, room: Room) -> None:
        self._pipe = pipe
        self._source = source
        self._changed = threading.Condition()
        self._commands: list[tuple[Any, ...]] = []
        self._room = room
        self._assignment: Assignment | None = None
        self._assignments = 0
        self._starts = 0
        self._told: Status | None = None
        self._beat_at = 0.0

    def run(self) -> None:
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        while self._obey():
            self._beat()
            # Step 1. An assignment goes before whatever is read for it.
            assignment = self._source.assignment()
            if assignment is not self._assignment:
                self._assignment = assignment
                self._assignments += 1
                self._told = self._status()
                self._pipe.send(Seen(_plain(assignment), self._told))
            # Step 2. No room: wait for a command, which may bring some.
            with self._changed:
                if not self._room.left:
                    self._changed.wait_for(lambda: self._commands, _LOOK_S)
                    continue
            # Step 3. Records, or where the source stands if that is news.
            records = Records.packed(self._source.poll(_POLL_S))
            if records:
                with self._changed:
                    self._room.take(records)
                self._told = self._status()
                self._pipe.send(Polled(self._starts, records, self._told))
            else:
                self._tell()

    def _obey(self) -> bool:
        """Does what the parent asked for. Returns whether to go on."""
        with self._changed:
            commands, self._commands = self._commands, []
        for name, *args in commands:
            if name == "close":
                return False
            if name == "commit":
                self._source.commit(args[0])
            elif name == "taken":
                with self._changed:
                    self._room.give_back(*args)
            # One meant for an assignment that has changed since is void: another will come.
            elif name == "start" and args[0] == self._assignments:
                self._starts = args[1]
                self._source.start(args[2])
        if commands or self._told is None:
            self._tell()
        return True

    def _tell(self) -> None:
        status = self._status()
        if status != self._told:
            self._told = status
            self._pipe.send(status)

    def _beat(self) -> None:
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + _BEAT_S
            self._pipe.send(Beat(self._source.health()))

    def _status(self) -> Status:
        source = self._source
        return Status(
            dict(source.lag_by_partition()), source.caught_up(), dict(source.stable_offsets()), dict(source.held())
        )

    def _listen(self) -> None:
        """The thread: takes commands as they come, and ends a poll that stands in their way."""
        while True:
            try:
                command = self._pipe.recv()
            except (EOFError, OSError):
                command = ("close",)
            with self._changed:
                self._commands.append(command)
                self._changed.notify()
            if command[0] != "taken":
                self._source.wake()
            if command[0] == "close":
                return


def _plain(assignment: Assignment | None) -> Assignment | None:
    """The same with plain dicts, whatever mappings it came with: those can be sent."""
    return assignment and replace(assignment, partitions=dict(assignment.partitions), totals=dict(assignment.totals))
