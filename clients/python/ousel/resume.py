"""How a stream that has lost its engine goes on with the same one or another, from where it was.

It says again what it follows and what it has sent lately. The engine folds an event of one id once, so that nothing
counts twice. A list that reflects less of the log than one that its reader has had is passed over: it comes from an
engine that is behind, and newer ones follow.
"""

from __future__ import annotations

import random
import time
from collections import deque

from ousel.errors import OuselError, ResourceExhausted, Unavailable
from ousel.types import RecommendationList
from ousel.v1 import recommender_service_pb2

Message = recommender_service_pb2.StreamRecommendationsRequest

MAX_EVENTS = 256  # that are sent again
_AGAIN_S = 10.0  # Events that were sent so long before the loss are not sent again: the log has them.
_FIRST_S, _LONGEST_S = 0.2, 5.0  # most of the first wait, and of any


class Progress:
    """Where a stream is: what it follows, what it has sent lately, what its reader has had.

    Args:
        limit_s: how long after the loss of its engine it tries; 0: it does not.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._query: recommender_service_pb2.Query | None = None
        self._events: deque[tuple[float, Message]] = deque(maxlen=MAX_EVENTS)
        self._had: dict[tuple[str, int], int] = {}  # offset by topic and partition
        self._received = False
        self._tries = 0
        self._lost_s = 0.0  # when the engine was lost, since when no list has come
        self._behind_until_s = 0.0

    def passed(self, message: Message) -> None:
        """Notes a message that goes out now."""
        if message.HasField("event"):
            self._events.append((time.monotonic(), message))
        elif message.subscribe != self._query:
            self._query = message.subscribe
            self._events.clear()  # They are of whoever was subscribed before.
            self._had.clear()

    def opening(self) -> list[Message]:
        """What is said first on the next call, to be noted by `passed` again; nothing on the first one."""
        since_s = (self._lost_s or time.monotonic()) - _AGAIN_S
        events = [message for sent_s, message in self._events if sent_s >= since_s]
        self._events.clear()
        return [] if self._query is None else [Message(subscribe=self._query), *events]

    @property
    def is_full(self) -> bool:
        """Whether one more event would have the oldest forgotten."""
        return len(self._events) == MAX_EVENTS

    def is_news(self, received: RecommendationList) -> bool:
        """Notes a list that came; False where its reader has had one that reflects more of the log."""
        now_s = time.monotonic()
        if self._lost_s:
            # A log that was made anew counts from 0 again, so this is not for ever.
            self._behind_until_s = now_s + self._limit_s
        self._received, self._tries, self._lost_s = True, 0, 0.0
        reflects = {(at.topic, at.partition): at.offset for at in received.reflects}
        if now_s < self._behind_until_s and any(self._had.get(key, -1) > offset for key, offset in reflects.items()):
            return False
        self._had.update(reflects)
        return True

    def may_resume(self, failure: OuselError) -> bool:
        """Whether a stream that failed so goes on. One that never had a list does not: its address may be wrong."""
        refused_again = isinstance(failure, ResourceExhausted) and self._tries > 0
        if not self._received or not (isinstance(failure, Unavailable) or refused_again):
            return False
        lost_for_s = time.monotonic() - self._lost_s if self._lost_s else 0.0
        return lost_for_s < self._limit_s

    def wait_s(self, failure: OuselError) -> float:
        """How long to wait before the next try: as the engine wishes, else drawn from a range that grows."""
        if not self._lost_s:
            self._lost_s = time.monotonic()
        most_s = min(_LONGEST_S, _FIRST_S * 2**self._tries)
        self._tries += 1
        return random.uniform(0, most_s) if failure.retry_after_s is None else failure.retry_after_s
