"""Has calls fail at once that wait for a record beyond the end of the log, in place of waiting as long as they may.

A thread asks the broker, since the end that the reader knows is as old as its last fetch. It asks once for all calls
that wait by then, and only for those that have waited for a while: most records are folded within milliseconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from typing import Protocol

from engine.events.source import Partition
from engine.waiting import WaitingCalls

_log = logging.getLogger(__name__)

_PATIENCE_S = 0.1  # that a call has waited before the broker is asked for its record
_AGAIN_S = 1.0  # before a broker that did not answer is asked again
_LOOK_S = 5.0
_CLOSE_S = 1.0  # A frozen broker may keep the thread for longer; it is left behind then, and ends with the process.


class LogEnds(Protocol):
    """Knows where partitions end now."""

    def ask(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """One past the last record of each; those are left out that nobody answers for. May raise anything."""

    def close(self) -> None: ...


class EndCheck:
    """Runs until it is closed."""

    def __init__(self, waiting: WaitingCalls, ends: LogEnds) -> None:
        self._waiting = waiting
        self._ends = ends
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="end-check", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._waiting.wake()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._waiting.wait_unchecked(_LOOK_S) or self._stop.wait(_PATIENCE_S):
                continue
            calls = self._waiting.take_unchecked()
            partitions = {call.after.partition_key for call in calls if call.after is not None}
            try:
                ends = self._ends.ask(partitions) if partitions else {}
            except Exception as error:
                _log.debug("the broker does not say where %s end: %s", sorted(partitions), error)
                ends = {}
            self._waiting.refuse_beyond(ends, calls)
            if partitions - ends.keys():
                self._waiting.put_back(call for call in calls if call.after and call.after.partition_key not in ends)
                self._stop.wait(_AGAIN_S)
        self._ends.close()
