"""Keeps what the models' topic says at hand: a thread reads it, and begins anew wherever that fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from engine.registry.errors import RegistryError
from engine.registry.ledger import Ledger, LedgerFold
from engine.registry.topic import ModelsTopic

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.25, 10.0


class LedgerReader:
    """Reads the topic from `start` to `stop`.

    Attributes:
        ledger: as of the newest record; None until the topic was read to its end once. It stays while the topic can't
            be read.
        problem: why the topic can't be read now; "" where it can.
    """

    def __init__(self, topic: ModelsTopic) -> None:
        self._topic = topic
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._position = 0
        self._thread = threading.Thread(target=self._run, name="models-topic", daemon=True)
        self.ledger: Ledger | None = None
        self.problem = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, which takes as long as a request to the broker at most. Safe to call before `start`."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until something is so that depends on what was read; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stop.is_set() or done(), timeout_s) and done()

    def notify(self) -> None:
        """Has everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def read_through(self, offset: int, timeout_s: float) -> Ledger:
        """What the topic says once the record at `offset` is read.

        Raises:
            RegistryError: it is not read in time.
        """
        if not self.wait(lambda: self._position > offset and self.ledger is not None, timeout_s):
            raise RegistryError(
                f"registry.topic {self._topic.name!r} was written and could not be read within {timeout_s:g} s"
                + (f": {self.problem}" if self.problem else "")
            )
        assert self.ledger is not None
        return self.ledger

    def _run(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stop.is_set():
            try:
                fold, ended = LedgerFold(), False
                for batch in self._topic.read(self._stop):
                    fold.apply(batch.records)
                    news = bool(batch.records) or (batch.at_end and not ended)
                    ended |= batch.at_end
                    if ended:
                        backoff_s = _FIRST_BACKOFF_S
                        self._publish(fold if news else None, batch.position)
            except RegistryError as error:
                self._fail(str(error))
            except Exception as error:  # A fault of ours here must not cost the engine its models for good.
                _log.exception("the thread that reads the models' topic failed")
                self._fail(f"registry.topic {self._topic.name!r} can't be read: {error!r}")
            self._stop.wait(backoff_s)
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)

    def _publish(self, fold: LedgerFold | None, position: int) -> None:
        """Makes what was read known; without a fold nothing new was."""
        if self.problem:
            _log.info("registry.topic %r is read again", self._topic.name)
        if fold is None and position == self._position and not self.problem:
            return
        ledger = fold.ledger() if fold is not None else self.ledger
        with self._changed:
            self.ledger, self._position, self.problem = ledger, position, ""
            self._changed.notify_all()

    def _fail(self, problem: str) -> None:
        if self._stop.is_set():
            return
        if problem != self.problem:
            _log.warning("%s; it is tried again and again", problem)
        with self._changed:
            self.problem, self._position = problem, 0
            self._changed.notify_all()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
