"""Calls whose list must reflect a record that is not folded yet: they wait here, within a limit of their own.

They wait apart from the calls that can be answered at once, so that a record which never comes costs nobody else
anything. Whoever learns from the broker where a partition ends tells it here, and a call for a record beyond that end
fails at once in place of waiting for as long as it may.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from engine import metrics
from engine.ranking.query import Position, Query, Ranking

Partition = tuple[str, int]  # topic, number

_STALE = 64  # offsets that nobody waits for any more and that a partition may keep, beside as many as are waited for


class Overloaded(RuntimeError):
    """More is asked for than the configuration allows.

    Attributes:
        retry_after_ms: when it may be worth another try.
    """

    def __init__(self, message: str, retry_after_ms: int = 200) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class NotFollowing(RuntimeError):
    """The engine does not read the log, or not the partition that is asked for: not yet, or not any more."""


class NoSuchRecord(ValueError):
    """A list must reflect a record that the log does not have."""


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One that waits for a list, and the record that the list must reflect."""

    query: Query
    after: Position | None
    answer: Future[Ranking]

    def fail(self, error: Exception) -> None:
        """Ends the call, unless it was cancelled."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)


@dataclass(slots=True)
class _Held:
    """The calls that wait for records of one partition.

    Attributes:
        calls: by offset; a dict in place of a set keeps their order.
        offsets: a heap of the keys of `calls`, and of some that have gone.
    """

    calls: dict[int, dict[Call, None]] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)

    def add(self, offset: int, call: Call) -> None:
        if offset not in self.calls:
            self.calls[offset] = {}
            heapq.heappush(self.offsets, offset)
        self.calls[offset][call] = None

    def remove(self, offset: int, call: Call) -> bool:
        """Whether it was there."""
        calls = self.calls.get(offset, {})
        if call not in calls:
            return False
        del calls[call]
        if not calls:
            del self.calls[offset]
        if len(self.offsets) > 2 * len(self.calls) + _STALE:
            self.offsets = sorted(self.calls)  # which is a heap
        return True

    def take_below(self, position: int) -> list[Call]:
        taken: list[Call] = []
        while self.offsets and self.offsets[0] < position:
            taken.extend(self.calls.pop(heapq.heappop(self.offsets), ()))
        return taken


class WaitingCalls:
    """Every method may be called from any thread.

    Args:
        limit: calls that may wait for records; one more is refused.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held: dict[Partition, _Held] = {}
        self._count = 0
        self._unchecked: dict[Call, None] = {}  # The broker has not been asked yet whether their records exist.
        self._ready: deque[Call] = deque()  # Their records are folded.
        self._added = threading.Condition(self._lock)
        metrics.CALLS_WAITING.set(0)

    def __len__(self) -> int:
        """Calls whose records are not folded yet, as of the last `release`."""
        return self._count

    @property
    def ready(self) -> int:
        """Calls whose records are folded, and whose lists can be made now."""
        return len(self._ready)

    def add(self, query: Query, after: Position) -> Future[Ranking]:
        """Has a call wait. Cancelling the future gives its place free at once.

        Raises:
            Overloaded: as many calls wait for records already as may.
        """
        call = Call(query, after, Future())
        with self._lock:
            if self._count + len(self._ready) >= self._limit:
                raise Overloaded(f"at most {self._limit} calls may wait for a record, try again later")
            self._held.setdefault(after.partition_key, _Held()).add(after.offset, call)
            self._unchecked[call] = None
            self._count_changed(1)
            self._added.notify_all()
        call.answer.add_done_callback(lambda _: self._remove(call))
        return call.answer

    def release(self, positions: Mapping[Partition, int]) -> None:
        """Makes the calls ready whose records are folded, and ends those whose records are not read here.

        Args:
            positions: the next offset to fold of each partition that is read.
        """
        unread: list[Call] = []
        with self._lock:
            for partition, held in list(self._held.items()):
                position = positions.get(partition)
                if position is None:
                    unread.extend(call for calls in held.calls.values() for call in calls)
                    del self._held[partition]
                    continue
                taken = held.take_below(position)
                self._ready.extend(taken)
                self._let_go(taken)
                if not held.calls:
                    del self._held[partition]
            self._let_go(unread)
        for call in unread:  # without the lock, which their callbacks take
            assert call.after is not None
            call.fail(NotFollowing(f"{call.after.topic}[{call.after.partition}] is not read here"))

    def take_ready(self, limit: int) -> list[Call]:
        """Up to `limit` calls whose lists are to be made now, the longest ready first."""
        with self._lock:
            return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    def wait_unchecked(self, timeout_s: float) -> bool:
        """Whether the broker has not been asked yet for a call's record; waits up to `timeout_s`, or a `wake`."""
        with self._added:
            return bool(self._unchecked) or (self._added.wait(timeout_s) and bool(self._unchecked))

    def wake(self) -> None:
        """Ends a running `wait_unchecked` early."""
        with self._added:
            self._added.notify_all()

    def take_unchecked(self) -> list[Call]:
        """The calls that the next answer of the broker is for: those that wait by now."""
        with self._lock:
            calls, self._unchecked = list(self._unchecked), {}
            return calls

    def put_back(self, calls: Iterable[Call]) -> None:
        """Notes that the broker did not answer, so that it is asked again for those that still wait."""
        with self._lock:
            self._unchecked |= dict.fromkeys(filter(self._waits, calls))

    def refuse_beyond(self, ends: Mapping[Partition, int], calls: Collection[Call]) -> None:
        """Ends those of `calls` whose records lie beyond the ends that the broker gave after they had come."""
        beyond: list[tuple[Call, int]] = []
        with self._lock:
            for call in calls:
                assert call.after is not None
                end = ends.get(call.after.partition_key)
                if end is not None and call.after.offset >= end and self._take_out(call):
                    beyond.append((call, end))
        for call, end in beyond:
            assert call.after is not None
            where = f"{call.after.topic}[{call.after.partition}]"
            call.fail(
                NoSuchRecord(f"after.offset must be below the end of {where}, which is {end}, got {call.after.offset}")
            )

    # -- with the lock held, except `_remove` -------------------------------------------------------------------------

    def _remove(self, call: Call) -> None:
        with self._lock:
            self._take_out(call)

    def _waits(self, call: Call) -> bool:
        assert call.after is not None
        held = self._held.get(call.after.partition_key)
        return held is not None and call in held.calls.get(call.after.offset, {})

    def _take_out(self, call: Call) -> bool:
        """Whether it still waited: then it is the caller's alone."""
        assert call.after is not None
        held = self._held.get(call.after.partition_key)
        if held is None or not held.remove(call.after.offset, call):
            return False
        if not held.calls:
            del self._held[call.after.partition_key]
        self._let_go([call])
        return True

    def _let_go(self, calls: Collection[Call]) -> None:
        for call in calls:
            self._unchecked.pop(call, None)
        self._count_changed(-len(calls))

    def _count_changed(self, by: int) -> None:
        self._count += by
        metrics.CALLS_WAITING.set(self._count)
