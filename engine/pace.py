"""Keeps work that can wait from taking the processor from what can't.

Most of a build runs in torch and hnswlib, without the interpreter lock, so what it takes from a list is its core: the
thread rests between pieces of work, in proportion to what they took, and stands behind others where cores are scarce.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress


class Pace:
    """Of the thread that makes it.

    Args:
        share: of one core that the thread may take, over 0 to 1.
        stop: ends every rest.
    """

    def __init__(self, share: float, stop: threading.Event) -> None:
        self._rest = 1 / share - 1
        self._stop = stop
        self._used_s = time.thread_time()

    def stopped(self) -> bool:
        """To be asked between two pieces of work: rests for as long as the last one asks for; True once to stop."""
        self._stop.wait(self._rest * (time.thread_time() - self._used_s))
        self._used_s = time.thread_time()
        return self._stop.is_set()


def counted(stopped: Callable[[], bool], pieces: int, report: Callable[[float], object]) -> Callable[[], bool]:
    """`stopped`, which is asked before each of about `pieces` pieces of work, and reports their share that is done."""
    done = 0

    def ask() -> bool:
        nonlocal done
        report(min(1.0, done / max(1, pieces)))
        done += 1
        return stopped()

    return ask


class Allowance:
    """How long a thread may work on something that can wait: a share of the time that passes, saved up to a limit.

    Args:
        share: of one core.
        most_s: saved up at most; as much is there at the beginning. Work that takes more is paid off afterwards.
        debt_s: that urgent work may take beyond what is left; it is paid off, too.
    """

    def __init__(self, share: float, most_s: float, debt_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._most_s, self._debt_s, self._clock = share, most_s, debt_s, clock
        self._left_s, self._at_s = most_s, clock()

    @property
    def ready(self) -> bool:
        """Whether any is left now."""
        return self._earned_s() > 0

    @property
    def ready_if_urgent(self) -> bool:
        """Whether urgent work may begin now."""
        return self._earned_s() > -self._debt_s

    def spend(self, seconds: float) -> None:
        """So much was worked."""
        self._left_s -= seconds

    def _earned_s(self) -> float:
        now_s = self._clock()
        self._left_s = min(self._most_s, self._left_s + self._share * (now_s - self._at_s))
        self._at_s = now_s
        return self._left_s


def step_back(nice: int) -> None:
    """Raises the calling thread's niceness by `nice`; only Linux knows one per thread."""
    if nice and sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + nice))
