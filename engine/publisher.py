"""Makes lists for the calls that wait and for the streams that an event, a model or the catalog concerns."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from engine import metrics
from engine.config import Config
from engine.events.batch import Decoded
from engine.generation import Generation
from engine.ranking.query import Cause, Position, Query, Ranking
from engine.ranking.recommender import recommend
from engine.state.state import Folded, State
from engine.state.subjects import subject_key

_log = logging.getLogger(__name__)


_FADE = 0.9  # of what is known of the pace of lists, at each batch
_REFUSING_S = 0.005  # before the interpreter is handed over, while calls are refused
_STREAMS = 4  # one place of so many in a batch is for streams, where as many calls wait as fill it


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


class Due(Protocol):
    """A stream that should get a new list."""

    query: Query
    cause: Cause


class Audience(Protocol):
    """Who listens. The engine's thread tells it what changed, and makes the lists that it asks for."""

    def mark(self, subjects: Collection[str], *, model: bool, catalog: bool) -> None:
        """`subjects` have new events; the model, or the catalog, has changed for all."""

    def due(self, limit: int) -> Sequence[Due]:
        """Takes up to `limit` streams that wait for a list, the most urgent first."""

    def deliver(self, due: Due, ranking: Ranking) -> None:
        """Hands over the list made for one of them."""


@dataclass(frozen=True, eq=False, slots=True)
class _Call:
    """One that waits for a list, and the record that the list must reflect."""

    query: Query
    after: Position | None
    answer: Future[Ranking]

    def waits(self, positions: Mapping[tuple[str, int], int]) -> bool:
        """Whether the record is still to come, given the next offset to fold of each partition that is read."""
        if self.after is None or self.answer.cancelled():
            return False
        position = positions.get(self.after.partition_key)
        return position is not None and position <= self.after.offset


class Publisher:
    """Calls may come from any thread; all else happens in the engine's."""

    def __init__(self, config: Config, audience: Audience) -> None:
        self._config = config
        self._audience = audience
        self._lock = threading.Lock()  # guards the calls
        self._calls: deque[_Call] = deque()
        self._held: list[_Call] = []  # until their records are folded
        self._spent_s, self._made = 0.0, 0.0  # lately, for so many lists
        self._began_s: float | None = None  # when calls began to wait for the next batch; None: none did when it began
        self._refused = 0  # calls since the last batch
        self._calm_s: float | None = None  # switch interval of before calls were refused; None: none are
        self._streams_turn = False  # where a batch has one place
        self._record_ms: dict[str, int] = {}  # newest event of each subject, until its list is out
        self._more_due = False  # streams may still wait after the last batch of lists

    @property
    def _list_s(self) -> float:
        """How far apart calls get their lists lately, where some wait all the time."""
        return self._spent_s / self._made if self._made else 0.0

    @property
    def busy(self) -> bool:
        """Whether a call or a stream waits for a list that can be made now."""
        return bool(self._calls or self._more_due)

    def ask(self, query: Query, after: Position | None = None) -> Future[Ranking]:
        """A list from the state as it will be at the next step, or at the first that has folded `after`.

        The future fails with NotFollowing where nothing will fold it: its partition is not read here.

        Raises:
            Overloaded: more than serving.max_queries calls wait already, or so many that this one would wait longer
                than serving.max_wait_ms.
        """
        answer: Future[Ranking] = Future()
        with self._lock:
            refusal = self._refusal()
            if refusal is not None:
                self._refused += 1
                raise refusal
            self._calls.append(_Call(query, after, answer))
        return answer

    def mark(self, batch: Decoded, folded: Folded, *, live: bool) -> None:
        """Notes whom a batch concerns; `live` once the log is caught up with, when freshness counts."""
        events = batch.events
        if len(events) == 0 and len(folded.catalog) == 0:
            return
        subjects = list(map(subject_key, events.user_id, events.session_id))
        if live:
            self._record_ms.update(zip(subjects, events.timestamp_ms.tolist(), strict=True))
            # Most of them have no stream. Where streams wait too long to tell, only the metric misses some.
            for subject in list(self._record_ms)[: -self._config.serving.max_streams]:
                del self._record_ms[subject]
        # The relation of an item names nobody: its key, of no user and no session, is no one's.
        self._audience.mark(set(subjects), model=False, catalog=len(folded.catalog) > 0)

    def publish(self, state: State, generation: Generation | None) -> None:
        """Makes one batch of lists: of waiting calls, and of streams by urgency, which always get a part of it."""
        self._make_way()
        limit = self._config.serving.max_batch
        began_s = time.perf_counter() if self._began_s is None else self._began_s
        places = max(limit - len(self._calls), self._places_of_streams(limit))
        dues = self._audience.due(places)
        calls = self._take(limit - len(dues), state)
        self._more_due = len(dues) == places
        if not dues and not calls:
            self._record_ms.clear()
            self._began_s = None
            return
        rankings = self._rank([call.query for call in calls] + [due.query for due in dues], state, generation)
        self._note_pace(began_s, len(calls) if self._began_s is not None else len(rankings))
        for call, ranking in zip(calls, rankings, strict=False):
            if isinstance(ranking, Ranking):
                call.answer.set_result(ranking)
            else:
                call.answer.set_exception(ranking)
        now_ms = time.time() * 1000
        for due, ranking in zip(dues, rankings[len(calls) :], strict=True):
            if isinstance(ranking, Ranking):
                self._audience.deliver(due, ranking)
            made_ms = self._record_ms.pop(due.query.subject, None)
            if due.cause == Cause.EVENTS and made_ms is not None:
                metrics.FRESHNESS_SECONDS.observe(max(0.0, now_ms - made_ms) / 1000)
        if not self._more_due:
            self._record_ms.clear()

    def _refusal(self) -> Overloaded | None:
        """Why no further call may wait, if so; with the lock held."""
        serving, waiting = self._config.serving, len(self._calls)
        if waiting + len(self._held) >= serving.max_queries:
            return Overloaded(f"at most {serving.max_queries} calls may wait, try again later")
        # One batch may always wait: the first lists of all, or few at a time, cost more each than what follows.
        if waiting >= serving.max_batch and waiting * self._list_s * 1000 > serving.max_wait_ms:
            return Overloaded(
                f"{waiting} calls wait, more than get a list in {serving.max_wait_ms:g} ms, try again later",
                retry_after_ms=math.ceil(serving.max_wait_ms),
            )
        return None

    def _make_way(self) -> None:
        """Lets the event loop keep the interpreter for longer while calls are refused.

        Refusing one costs the loop as much as answering one. Where it falls behind, answers wait in it, and gRPC
        cancels calls that it has not looked at, without a hint.
        """
        with self._lock:
            refused, self._refused = self._refused, 0
        if refused and self._calm_s is None:
            self._calm_s = sys.getswitchinterval()
            sys.setswitchinterval(max(self._calm_s, _REFUSING_S))
        elif not refused and self._calm_s is not None:
            sys.setswitchinterval(self._calm_s + 5e-7)  # Python cuts off to microseconds, one less each time
            self._calm_s = None

    def _places_of_streams(self, limit: int) -> int:
        """How many of a batch they get however many calls wait: else they would starve when it matters most."""
        if limit > 1:
            return max(1, limit // _STREAMS)
        self._streams_turn = not self._streams_turn
        return int(self._streams_turn)

    def _note_pace(self, began_s: float, made: int) -> None:
        """`made` lists since `began_s`; where calls waited all along, folding and all else is part of their wait."""
        now_s = time.perf_counter()
        if made:
            self._spent_s = _FADE * self._spent_s + now_s - began_s
            self._made = _FADE * self._made + made
        self._began_s = now_s if self._calls else None

    def _take(self, limit: int, state: State) -> list[_Call]:
        """Up to `limit` calls to be answered now; those whose record is not folded yet are held back."""
        taken: list[_Call] = []
        with self._lock:
            if not self._calls and not self._held:
                return taken
            positions = state.positions
            self._calls.extendleft(call for call in reversed(self._held) if not call.waits(positions))
            self._held = [call for call in self._held if call.waits(positions)]
            for _ in range(min(limit, len(self._calls))):
                call = self._calls.popleft()
                (self._held if call.waits(positions) else taken).append(call)
        taken = [call for call in taken if call.answer.set_running_or_notify_cancel()]
        for call in taken:
            if call.after is not None and call.after.partition_key not in positions:
                call.answer.set_exception(NotFollowing(f"{call.after.topic}[{call.after.partition}] is not read here"))
        return [call for call in taken if not call.answer.done()]

    def _rank(self, queries: Sequence[Query], state: State, generation: Generation | None) -> list[Ranking | Exception]:
        """One list per query. Where they fail together each is tried alone: one bad list must not cost the others."""
        try:
            return list(recommend(queries, state, generation, self._config.ranking))
        except Exception as error:
            if len(queries) == 1:
                _log.exception("the list of %s could not be made", queries[0])
                metrics.STEP_FAILURES.labels("publish").inc()
                return [error]
            return [ranking for query in queries for ranking in self._rank([query], state, generation)]
