"""Where records come from: a protocol, and an in-memory log that ends, stalls and fails on cue."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.events.batch import Record


class EventSource(Protocol):
    """A log read in order, partition by partition."""

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
        """True once `poll` has returned every record that the log held when the source started."""

    def close(self) -> None:
        """Stops reading. Safe to call twice."""


class SourceError(RuntimeError):
    """The log can't be read; the message says what to check."""


class MemorySource:
    """A log in memory, for tests and benchmarks that need no broker."""

    def __init__(self, batches: Sequence[Sequence[Record]] = ()) -> None:
        self._batches = list(batches)
        self._start = sum(map(len, self._batches))
        self._returned = 0
        self._failure: SourceError | None = None
        self._stalled = False
        self._woken = False
        self._ready = threading.Condition()

    def append(self, batch: Sequence[Record]) -> None:
        """One more batch for the next polls, from any thread."""
        with self._ready:
            self._batches.append(batch)
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

    def poll(self, timeout_s: float) -> Sequence[Record]:
        with self._ready:
            self._ready.wait_for(
                lambda: self._woken or self._failure or (self._batches and not self._stalled), timeout_s
            )
            self._woken = False
            if self._batches and not self._stalled:
                batch = self._batches.pop(0)
                self._returned += len(batch)
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
            return sum(map(len, self._batches))

    def lag_by_partition(self) -> Mapping[tuple[str, int], int]:
        with self._ready:
            return Counter((record.topic, record.partition) for batch in self._batches for record in batch)

    def caught_up(self) -> bool:
        return self._returned >= self._start

    def close(self) -> None:
        self.wake()
