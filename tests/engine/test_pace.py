from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from engine.pace import Pace, step_back


class Rests(threading.Event):
    """Notes the rests that are asked for and takes none."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.asked.append(timeout)
        return self.is_set()


def work(seconds: float) -> float:
    """Computes for so much of this thread's time; returns how much it was."""
    begun = time.thread_time()
    while time.thread_time() - begun < seconds:
        pass
    return time.thread_time() - begun


@pytest.mark.parametrize(("share", "rest"), [(0.5, 1.0), (0.25, 3.0), (1.0, 0.0)])
def test_rests_in_proportion_to_the_work_of_each_piece(share, rest):
    rests = Rests()
    pace = Pace(share, rests)
    for _ in range(3):
        worked = work(0.01)
        assert not pace.stopped()
        assert rest * worked <= rests.asked[-1] <= rest * (worked + 0.01)


def test_a_stop_is_told():
    rests = Rests()
    rests.set()
    assert Pace(0.5, rests).stopped()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows a priority per thread")
def test_steps_back_in_its_own_thread_alone():
    before, seen = os.getpriority(os.PRIO_PROCESS, 0), []

    def aside() -> None:
        step_back(3)
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=aside)
    thread.start()
    thread.join()
    assert seen == [min(19, before + 3)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
