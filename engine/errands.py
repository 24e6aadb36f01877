"""Work that one thread hands to another, and the future that tells how it ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

R = TypeVar("R")


class Errands:
    """Work that other threads want done in the engine's thread, between two of its steps.

    Args:
        wake: makes the engine's thread look for work now; called from any thread.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        """Errands that wait for the engine's thread."""
        return len(self._waiting)

    def submit(self, errand: Callable[[], R]) -> Future[R]:
        """Has something done in the engine's thread. Cancelling the future takes it back while it waits."""
        result: Future[R] = Future()

        def run() -> None:
            if result.set_running_or_notify_cancel():
                settle(result, errand)

        with self._lock:
            self._waiting.append(run)
        self._wake()
        return result

    def run(self, errand: Callable[[], R]) -> R:
        """Has something done in the engine's thread, and waits for it; never call it from that thread."""
        return self.submit(errand).result()

    def work_off(self) -> None:
        """Does all that waits; for the engine's thread alone."""
        while True:
            with self._lock:
                if not self._waiting:
                    return
                errand = self._waiting.popleft()
            errand()


def begun() -> Future[Any]:
    """A future that is running already, so that it can't be taken back."""
    answer: Future[Any] = Future()
    answer.set_running_or_notify_cancel()
    return answer


def in_background(name: str, work: Callable[[], R], answer: Future[R]) -> threading.Thread:
    """Runs `work` in a daemon thread of this name, which settles `answer`, a future that is running already."""
    thread = threading.Thread(target=settle, args=(answer, work), name=name, daemon=True)
    thread.start()
    return thread


def settle(answer: Future[R], work: Callable[[], R]) -> None:
    """Gives a running future what `work` returns, or what it raises."""
    try:
        result = work()
    except Exception as error:
        answer.set_exception(error)
    else:
        answer.set_result(result)
