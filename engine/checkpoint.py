"""Takes snapshots while the engine works: copied by its thread in pieces, written aside, then noted in the group.

    due -> copy, a piece per step -> wait for dead letters and write, in a thread -> commit the positions

One at a time; the next is due an interval after the last has ended, and only where something was folded since.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Protocol

from engine import metrics
from engine.config import SnapshotConfig
from engine.copies import Copies
from engine.state.copying import SavedState, StateCopy
from engine.state.state import State

_log = logging.getLogger(__name__)

Positions = Mapping[tuple[str, int], int]


class SnapshotWriter(Protocol):
    """Where snapshots go."""

    def write(self, saved: SavedState) -> object:
        """Saves it whole or not at all; raises OSError or RuntimeError where that fails."""


class SnapshotsOff(RuntimeError):
    """A snapshot is asked for, and there is no folder for it."""


class Checkpoints:
    """Takes a snapshot every now and then. Only the engine's thread calls it.

    Args:
        settle: waits until no dead letter of a record before the copy is on its way any more: what a snapshot is past
            is not read again.
        commit: called with the positions of a snapshot that is safe.
    """

    def __init__(
        self,
        config: SnapshotConfig,
        writer: SnapshotWriter,
        copies: Copies,
        settle: Callable[[], object],
        commit: Callable[[Positions], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._writer = writer
        self._copies = copies
        self._settle = settle
        self._commit = commit
        self._clock = clock
        self._next_s = clock() + config.interval_s
        self._running = False
        self._thread: threading.Thread | None = None
        self._wanted: list[Future[Positions]] = []  # answered by the next snapshot to begin
        self._answers: list[Future[Positions]] = []  # answered by the one that runs
        self._error: Exception | None = None
        self.taken_s: float | None = None  # when the newest was written, since 1970
        self._safe: Positions = {}  # of the newest snapshot
        self._written: Positions = {}  # of a snapshot just written, not committed yet

    @property
    def running(self) -> bool:
        """Whether a snapshot is being taken."""
        return self._running

    def step(self, state: State) -> None:
        """Begins a snapshot if one is due, and ends one that is written."""
        if self._running:
            self._collect()
        elif self._wanted or self._clock() >= self._next_s:
            self.begin(state)

    def want(self, answer: Future[Positions]) -> None:
        """Has a snapshot taken soon; the answer, running already, is what it holds, once it is safe."""
        self._wanted.append(answer)

    def begin(self, state: State) -> None:
        """Begins a snapshot, unless one runs or nothing was folded since the last."""
        if self._running or state.positions == self._safe:
            if not self._running:
                self._next_s = self._clock() + self._config.interval_s
                self._answer(self._wanted)
                self._wanted = []
            return
        self._running = True
        self._answers, self._wanted = self._wanted, []
        self._copies.want(lambda: StateCopy(state, self._config.piece_bytes), self._write)

    def close(self, state: State) -> None:
        """Ends the snapshot that runs, and takes a last one of what was folded since."""
        self._finish()
        self.begin(state)
        self._finish()

    def abandon(self, error: Exception) -> None:
        """Waits for a write that runs, and takes no further one: who waits for one hears of `error`."""
        self._join()
        answers, self._answers, self._wanted = self._answers + self._wanted, [], []
        for answer in answers:
            answer.set_exception(error)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _finish(self) -> None:
        self._copies.finish()
        self._join()
        if self._running:
            self._collect()

    def _write(self, copy: StateCopy) -> None:
        saved = copy.saved()
        # A daemon: a snapshot cut off at exit is a folder that was never renamed, and the one before it counts.
        self._thread = threading.Thread(target=self._save, args=(saved,), name="snapshot", daemon=True)
        self._thread.start()

    def _save(self, saved: SavedState) -> None:
        begun = time.monotonic()
        try:
            self._settle()
            self._writer.write(saved)
        except Exception as error:
            self._error = error
            metrics.SNAPSHOT_FAILURES.inc()
            _log.error("the snapshot failed, the one before it still counts: %s", error)
            return
        metrics.SNAPSHOT_SECONDS.observe(time.monotonic() - begun)
        self.taken_s = time.time()
        metrics.SNAPSHOT_TIME.set(self.taken_s)
        self._written = saved.positions

    def _collect(self) -> None:
        if self._thread is None or self._thread.is_alive():
            return
        self._thread.join()
        self._thread = None
        self._running = False
        self._next_s = self._clock() + self._config.interval_s
        if self._error is None:
            self._safe = self._written
            self._commit(self._safe)
        self._answer(self._answers)
        self._error, self._answers = None, []

    def _answer(self, answers: list[Future[Positions]]) -> None:
        for answer in answers:
            if self._error is None:
                answer.set_result(self._safe)
            else:
                answer.set_exception(self._error)
