"""A source in a process of its own, so that polling Kafka takes no time from the interpreter that folds."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe

import numpy as np

from engine.events.process_child import Beat, Failed, Polled, Room, Seen, Status
from engine.events.records import Records
from engine.events.source import Assignment, BrokerAway, EventSource, LogHealth, Partition, SourceError
from engine.log_output import log_form
from engine.process_metrics import watch_reader

# A catalog record is decoded, folded and embedded alone, which takes as long as ten events or more. Once the log has
# been caught up with, calls wait for the records of one batch: 256 of them take about 10 ms.
_LIVE_ITEMS = 256
_CLOSE_S = 10.0  # for the child to leave its group and end; then it is killed


@dataclass
class _Batch:
    records: Records
    caught_up: bool  # once it is returned


class ProcessSource:
    """Runs another source in a child process and passes everything on; an `EventSource`.

    The child is a new interpreter that imports what the factory needs and nothing else. It polls ahead until as many
    records, or bytes, wait to be returned as `queue_batches` full batches hold. It ends with this process, however that
    ends.

    Args:
        factory: makes the source in the child; picklable, such as `functools.partial(KafkaSource, config)`.
        queue_batches: full batches' worth of records held ready, in however many small ones they come.
        max_poll_records: batches that wait are returned as one, up to this many records, which is a full one.
        max_poll_bytes: a batch with keys and values of so many bytes is full as well.
        items_topic: once the log has been caught up with, a batch has few records of this topic, for each takes long.

    Raises:
        SourceError: the factory raised one, or the child ended before it had a source.
    """

    def __init__(
        self,
        factory: Callable[[], EventSource],
        queue_batches: int = 8,
        max_poll_records: int = 4096,
        max_poll_bytes: int = 4 << 20,
        items_topic: str = "",
    ) -> None:
        self._items_topic = items_topic
        self._max_poll_records = max_poll_records
        self._max_poll_bytes = max_poll_bytes
        self._changed = threading.Condition()
        self._queue: deque[_Batch] = deque()
        self._woken = False
        self._opened = False
        self._closing = False
        self._failure: SourceError | None = None
        self._assignment: Assignment | None = None
        self._assignments = 0  # how often it changed
        self._returned = 0  # which of them `assignment` returned last
        self._starts = 0
        self._caught_up = False
        self._health = LogHealth()
        self._beat_s = time.monotonic()  # when the child said that
        self._status = Status({}, False, {}, {})  # where the child stands
        self._sending = threading.Lock()
        self._pipe, theirs = Pipe()
        self._child: subprocess.Popen[bytes] | None = None
        self._send(factory)
        # Linux kills the child when the thread that started it ends: let that be the one that lives as long.
        args = (theirs, Room(queue_batches * max_poll_records, queue_batches * max_poll_bytes))
        self._thread = threading.Thread(target=self._run, args=args, name="process-source", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._failure)
        if self._failure:
            self.close()
            raise self._failure

    def assignment(self) -> Assignment | None:
        with self._changed:
            self._returned = self._assignments
            return self._assignment

    def start(self, positions: Mapping[Partition, int]) -> None:
        with self._changed:
            self._starts += 1
            self._drop()
            # The child ignores it where the assignment has changed since.
            self._send(("start", self._returned, self._starts, dict(positions)))

    def commit(self, positions: Mapping[Partition, int]) -> None:
        self._send(("commit", dict(positions)))

    def poll(self, timeout_s: float) -> Records:
        """Returns the next records, or none after `timeout_s` or an earlier `wake`. See `EventSource`."""
        parts: list[Records] = []
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._woken or self._failure or self._closing, timeout_s)
            self._woken = False
            if not self._queue and self._failure:
                raise self._failure
            room = Room(self._max_poll_records, self._max_poll_bytes)
            items = _LIVE_ITEMS if self._caught_up else sys.maxsize
            while self._queue and items > 0 and (not parts or room.holds(self._queue[0].records)):
                batch = self._queue.popleft()
                of_items = batch.records.of_topic(self._items_topic).cumsum()
                count = int(np.searchsorted(of_items, items, side="right"))
                if count < len(batch.records):
                    parts.append(batch.records[:count])
                    self._queue.appendleft(_Batch(batch.records[count:], batch.caught_up))
                    break
                parts.append(batch.records)
                room.take(batch.records)
                items -= int(of_items[-1]) if count else 0
                self._caught_up = batch.caught_up
        if parts:
            self._send_taken(parts)
        return Records.joined(parts)

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def lag(self) -> int:
        return sum(self.lag_by_partition().values())

    def lag_by_partition(self) -> Mapping[Partition, int]:
        with self._changed:
            lag = Counter(self._status.lag)
            for batch in self._queue:
                for run in batch.records.runs:
                    lag[run.topic, run.partition] += run.count
            return lag

    def caught_up(self) -> bool:
        with self._changed:
            return self._caught_up

    def health(self) -> LogHealth:
        """How the log answers; a child that says nothing, since it is frozen, counts as a log that does not."""
        with self._changed:
            silent_s = time.monotonic() - self._beat_s
            return replace(self._health, age_s=self._health.age_s + silent_s)

    def stable_offsets(self) -> Mapping[Partition, int]:
        with self._changed:
            return self._status.stable_offsets

    def held(self) -> Mapping[Partition, str]:
        with self._changed:
            return self._status.held

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._send(("close",))
        self._thread.join(_CLOSE_S)
        if self._child and self._thread.is_alive():
            self._child.kill()
            self._thread.join()
        self._pipe.close()

    def _drop(self) -> None:
        if self._queue:
            self._send_taken([batch.records for batch in self._queue])
            self._queue.clear()

    def _send_taken(self, parts: Sequence[Records]) -> None:
        self._send(("taken", sum(map(len, parts)), sum(part.size_bytes for part in parts)))

    def _send(self, message: object) -> None:
        # A child that is gone reads nothing; `_run` says so.
        with self._sending, suppress(OSError):
            self._pipe.send(message)

    def _run(self, theirs: Connection, room: Room) -> None:
        """The thread: starts the child, takes its messages until it ends, and says how it ended."""
        try:
            with theirs:
                self._child = _start(theirs.fileno(), room)
                watch_reader(self._child.pid)
        except OSError as error:
            self._fail(f"the process that reads the log can't be started: {error}")
            return
        with suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv()
                with self._changed:
                    self._take(message)
                    self._changed.notify_all()
        self._fail(f"the process that reads the log {_ended(self._child.wait())}")

    def _take(self, message: object) -> None:
        match message:
            case Status():
                self._opened = True
                self._note(message)
            case Seen(assignment, status):
                self._drop()  # Records of the old assignment are of no use any more.
                self._assignment = assignment
                self._assignments += 1
                self._woken = True
                self._note(status)
            case Polled(starts, records, _) if starts != self._starts:
                self._send_taken([records])
            case Polled(_, records, status):
                self._queue.append(_Batch(records, status.caught_up))
                self._note(status)
            case Beat(health):
                self._health, self._beat_s = health, time.monotonic()
            case Failed(reason, away):
                self._failure = BrokerAway(reason) if away else SourceError(reason)

    def _note(self, status: Status) -> None:
        self._status = status
        if self._queue:
            self._queue[-1].caught_up = status.caught_up
        else:
            self._caught_up = status.caught_up

    def _fail(self, reason: str) -> None:
        with self._changed:
            if not self._failure and not self._closing:
                self._failure = SourceError(reason)
            self._changed.notify_all()


def _ended(code: int) -> str:
    """How a process ended, by what the system says of it."""
    if code >= 0:
        return f"ended by itself with exit code {code}"
    if -code == signal.SIGKILL:
        return (
            "was killed by SIGKILL, as the kernel does where memory runs out: look into the kernel's log, and lower"
            " kafka.queue_batches or kafka.max_poll_bytes where that says so"
        )
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-code}"


def _start(pipe: int, room: Room) -> subprocess.Popen[bytes]:
    level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
    # Not multiprocessing: its child would import the program that runs here, and torch with it.
    command = [sys.executable, "-P", "-c", "from engine.events.process_child import main; main()"]
    return subprocess.Popen(
        [*command, str(pipe), str(os.getpid()), str(room.records), str(room.bytes), level, log_form()],
        stdin=subprocess.DEVNULL,
        pass_fds=(pipe,),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        # Ctrl-C in a terminal reaches this process alone, even while the child is still starting.
        start_new_session=True,
    )
