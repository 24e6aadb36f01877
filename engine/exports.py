"""Answers what is held about somebody, a few at a time: one answer may look through all that is remembered of items.

Questions come from any thread and wait, up to a limit. The engine's thread answers them between two steps, within a
share of its time, so that however many come, they take little of it from lists and events.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

from engine import metrics
from engine.errands import settle
from engine.pace import Allowance
from engine.state.export import Subject, export_subject
from engine.state.state import State
from engine.waiting import NotFollowing, Overloaded

_SHARE, _BURST_S = 0.2, 0.02  # of the time of the engine's thread

Answer = Future[tuple[Subject, ...]]


class Exports:
    """Questions that wait for their answers.

    Args:
        limit: that may wait; one more is refused.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: dict[Answer, str] = {}  # and whom they ask about, the longest waiting first
        self._time = Allowance(_SHARE, _BURST_S, debt_s=0.0)
        metrics.EXPORTS_WAITING.set(0)

    def __len__(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether one waits, and may be answered now."""
        return bool(self._waiting) and self._time.ready

    def ask(self, subject: str) -> Answer:
        """All that is held about a user or an anonymous session, by its subject_key.

        Cancelling the future takes the question back.

        Raises:
            Overloaded: too many wait already.
        """
        answer: Answer = Future()
        with self._lock:
            if len(self._waiting) >= self._limit:
                raise Overloaded(f"at most {self._limit} calls may wait for what is held of a user, try again later")
            self._waiting[answer] = subject
            metrics.EXPORTS_WAITING.set(len(self._waiting))
        answer.add_done_callback(self._take_back)
        return answer

    def answer(self, state: State) -> None:
        """Answers as many as there is time for; for the engine's thread."""
        while self.ready:
            with self._lock:
                if not self._waiting:
                    return
                answer, subject = next(iter(self._waiting.items()))
                del self._waiting[answer]
                metrics.EXPORTS_WAITING.set(len(self._waiting))
            worked_s = time.thread_time()
            if answer.set_running_or_notify_cancel():
                settle(answer, lambda subject=subject: export_subject(state, subject))  # type: ignore[misc]
            self._time.spend(time.thread_time() - worked_s)

    def close(self) -> None:
        """Answers nobody any more."""
        with self._lock:
            waiting, self._waiting = list(self._waiting), {}
        for answer in waiting:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(NotFollowing("the engine is stopping"))

    def _take_back(self, answer: Answer) -> None:
        with self._lock:
            if self._waiting.pop(answer, None) is not None:
                metrics.EXPORTS_WAITING.set(len(self._waiting))
