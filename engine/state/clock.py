"""The clock of a slice: the latest time that its events have shown, which no single record may move far.

The time of an event is at most that of its record (`engine.events.codec`). A broker that takes the times of producers
takes one of the year 2100, too, and counts decay by the clock: under a clock of 2100 all that has happened is nothing.
So a record that leaps ahead by more than `leap_ms` counts at the clock as it stands. Only a second record in a row that
leaps, too, makes the clock follow, to the earlier of the two: after a pause, or when old events are sent at once, the
first record is counted too early, and no other one.

Shapes: E events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from engine.state.kernels import Longs, compiled


class Clock:
    """Reads times in log order.

    Attributes:
        now_ms: the latest time; 0 before the first event.
        leapt_ms: the time of the newest record where it leapt ahead and no other has confirmed it, else 0.
    """

    def __init__(self, leap_s: float) -> None:
        self._leap_ms = int(leap_s * 1000)
        self.now_ms = 0
        self.leapt_ms = 0

    def saved(self) -> dict[str, int]:
        """The numbers that `restore` takes, by name."""
        return {"newest_ms": self.now_ms, "leapt_ms": self.leapt_ms}

    def restore(self, numbers: Mapping[str, int]) -> None:
        """Takes over what was saved; older snapshots say less."""
        self.now_ms, self.leapt_ms = numbers.get("newest_ms", 0), numbers.get("leapt_ms", 0)

    def read(self, time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """[E] the times that the events count at; the clock goes on with them."""
        newest_ms = int(time_ms.max())
        if self.now_ms and not self.leapt_ms and newest_ms <= self.now_ms + self._leap_ms:  # As nearly always.
            self.now_ms = max(self.now_ms, newest_ms)
            return time_ms
        counted_ms: NDArray[np.int64] = np.empty(len(time_ms), np.int64)
        self.now_ms, self.leapt_ms = read_clock(self.now_ms, self.leapt_ms, self._leap_ms, time_ms, counted_ms)
        return counted_ms


def latest_of(clocks: Iterable[tuple[int, int]]) -> int:
    """The clock of several slices, given the time and the number of events of each.

    The clock of a slice of one event is what one record says. It counts where no other slice knows better, and then the
    second latest of such clocks.
    """
    known = [(now_ms, events) for now_ms, events in clocks if now_ms]
    shown = [now_ms for now_ms, events in known if events > 1]
    if shown:
        return max(shown)
    alone = sorted(now_ms for now_ms, _ in known)
    return alone[-2] if len(alone) > 1 else sum(alone)


@compiled("UniTuple(i8, 2)(i8, i8, i8, i8[::1], i8[::1])")
def read_clock(now_ms: int, leapt_ms: int, leap_ms: int, time_ms: Longs, counted_ms: Longs) -> tuple[int, int]:
    """Fills `counted_ms` [E] as `Clock` says; returns its two times afterwards."""
    for e in range(len(time_ms)):
        if now_ms == 0 or time_ms[e] <= now_ms + leap_ms:
            now_ms, leapt_ms = max(now_ms, time_ms[e]), 0
            counted_ms[e] = time_ms[e]
        elif leapt_ms == 0:
            leapt_ms = time_ms[e]
            counted_ms[e] = now_ms
        else:
            now_ms, leapt_ms = min(leapt_ms, time_ms[e]), time_ms[e]
            if time_ms[e] <= now_ms + leap_ms:
                now_ms, leapt_ms = max(now_ms, time_ms[e]), 0
            counted_ms[e] = min(now_ms, time_ms[e])
    return now_ms, leapt_ms
