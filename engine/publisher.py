"""Makes lists for the calls that wait and for the streams that an event, a model or the catalog concerns."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from engine import metrics
from engine.call_queue import WIDE_PART, CallQueue, weight_of
from engine.catalog_watch import CatalogWatch
from engine.config import Config
from engine.control_groups import threads_beside_one
from engine.events.batch import Decoded, EventBatch
from engine.favourite import Favourite
from engine.generation import Generation
from engine.live_quality import LiveQuality
from engine.pace import Allowance
from engine.ranking.catalog_change import CatalogChange
from engine.ranking.query import Cause, Origin, Position, Query, Ranking, Turn
from engine.ranking.recommender import recommend
from engine.ranking.side_by_side import SideBySide
from engine.state.state import Folded, State
from engine.state.subjects import subject_key
from engine.tracing import spans
from engine.tracing.spans import Link
from engine.waiting import Call, NotFollowing, Overloaded, WaitingCalls

__all__ = ["Audience", "Due", "NotFollowing", "Overloaded", "Publisher"]

_log = logging.getLogger(__name__)

# Found once: to find a counter by its label costs as much as to raise it.
_LISTS = {origin: metrics.LISTS.labels(origin.name.lower()) for origin in Origin}
# It is shown from 0 on: of a counter that begins at 1 Prometheus does not see that it has risen.
_FAILED = metrics.STEP_FAILURES.labels("publish")

# Of lists that changes of the catalog may have made at once, where they were rare before; and of further ones that show
# an item which may not be listed any more.
_CATALOG_BURST_S, _CATALOG_DEBT_S = 0.3, 2.0
_NONE: Mapping[tuple[str, int, int], str] = {}
_FADE = 0.9  # of what is known of the pace of lists, at each batch
_REFUSING_S = 0.005  # before the interpreter is handed over, while calls are refused
_RELEASED = 4  # one place of so many is for calls whose record has come, where as many other calls wait
# Lists for the catalog in one batch: a call that comes meanwhile waits for all of it, so they come a few at a time.
_FOR_CATALOG = 16
_STREAMS = 4  # one place of so many in a batch is for streams, where as many calls wait as fill it


class Due(Protocol):
    """A stream that should get a new list."""

    query: Query
    cause: Cause


class Audience(Protocol):
    """The listeners. The engine's thread tells them what changed, and makes the lists that they ask for."""

    def mark(self, subjects: Collection[str], *, model: bool) -> None:
        """`subjects` have new events; the model has changed for all."""

    def trace(self, subjects: Collection[str], fold: Link) -> None:
        """`subjects` have new events that are traced; their next list follows from this batch."""

    def mark_catalog(self, change: CatalogChange) -> None:
        """The catalog has changed, for the streams whose lists that concerns."""

    def due(self, limit: int, last: Turn) -> Sequence[Due]:
        """Takes up to `limit` streams that wait for a list, the most urgent first, and none that come after `last`."""

    def deliver(self, due: Due, ranking: Ranking) -> None:
        """Hands over the list made for one of them."""


class Publisher:
    """Calls may come from any thread; all else happens in the engine's.

    Args:
        wake: makes the engine's thread look for work now.

    Attributes:
        waiting: the calls whose lists must reflect a record that is not folded yet.
        favourite: says what makes lists where no model serves.
    """

    def __init__(self, config: Config, audience: Audience, wake: Callable[[], object] = lambda: None) -> None:
        self._config = config
        self._wake = wake
        self.favourite = Favourite(config)
        self._audience = audience
        self._quality = LiveQuality(config.quality)
        self._threads = SideBySide(threads_beside_one(config.serving.list_threads))
        self.waiting = WaitingCalls(config.serving.max_waiting)
        self._lock = threading.Lock()  # guards the calls
        self._calls = CallQueue()  # of calls that wait for no record
        self._spent_s, self._made = 0.0, 0.0  # lately, for so many lists
        self._began_s: float | None = None  # when calls began to wait for the next batch; None: none did when it began
        self._refused = 0  # calls since the last batch
        self._calm_s: float | None = None  # switch interval of before calls were refused; None: none are
        self._streams_turn = self._released_turn = False  # where a batch has one place
        self._record_ms: dict[str, int] = {}  # newest event of each subject, until its list is out
        self._more_due = False  # streams may still wait after the last batch of lists
        self._catalog = CatalogWatch()
        self._catalog_time = Allowance(config.serving.catalog_share, _CATALOG_BURST_S, _CATALOG_DEBT_S)

    @property
    def _list_s(self) -> float:
        """How far apart calls get their lists lately, where some wait all the time."""
        return self._spent_s / self._made if self._made else 0.0

    @property
    def busy(self) -> bool:
        """Whether a call or a stream waits for a list that can be made now, or streams for what the catalog says."""
        return bool(len(self._calls) or self.waiting.ready or self._more_due or self._may_tell)

    @property
    def _may_tell(self) -> bool:
        """Whether streams are to be told of changes of the catalog, and there is time for that."""
        time_left = self._catalog_time
        return self._catalog.waiting and (time_left.ready or (self._catalog.forbids and time_left.ready_if_urgent))

    def ask(self, query: Query, after: Position | None = None) -> Future[Ranking]:
        """A list from the state as it will be at the next step, or at the first that has folded `after`.

        The future fails with NotFollowing where nothing will fold it, because its partition is not read here, and with
        NoSuchRecord where the broker says that the log does not have it.

        Raises:
            Overloaded: more than serving.max_queries calls wait already, or so many that this one would wait longer
                than serving.max_wait_ms; or serving.max_waiting calls wait for records.
        """
        if after is None:
            return self.ask_all((query,))[0]
        answer = self.waiting.add(query, after)
        self._wake()
        return answer

    def ask_all(self, queries: Sequence[Query]) -> list[Future[Ranking]]:
        """`ask` for several lists, made together from one moment; all of them may wait, or none."""
        calls = [Call(query, None, Future()) for query in queries]
        weight = sum(map(self._weight_of, queries))
        with self._lock:
            refusal = self._refusal(len(calls), wide=weight > 1)
            if refusal is not None:
                self._refused += 1
                raise refusal
            self._calls.add(calls, weight)
        self._wake()
        return [call.answer for call in calls]

    def close(self) -> None:
        """Ends the threads that make lists. Safe to call twice."""
        self._threads.close()

    def mark(
        self, batch: Decoded, folded: Folded, *, live: bool, traced: Mapping[tuple[str, int, int], str] = _NONE
    ) -> None:
        """Notes whom a batch concerns.

        Args:
            live: whether the log is caught up with, so that freshness counts.
            traced: the traceparent of each record that is traced, by topic, partition and offset.
        """
        events = batch.events
        self._catalog.note_timed(folded.timed.numpy())
        if len(events) == 0 and len(folded.catalog) == 0:
            return
        subjects = list(map(subject_key, events.user_id, events.session_id))
        if live:
            self._quality.judge(events, subjects)
            self._record_ms.update(zip(subjects, events.timestamp_ms.tolist(), strict=True))
            # Most of them have no stream. Where streams wait too long to tell, only the metric misses some.
            for subject in list(self._record_ms)[: -self._config.serving.max_streams]:
                del self._record_ms[subject]
        # The relation of an item names nobody: its key, of no user and no session, is no one's.
        self._audience.mark(set(subjects), model=False)
        if traced:
            self._trace(traced, events, subjects)
        self._catalog.note(folded.catalog.numpy())

    def _trace(self, traced: Mapping[tuple[str, int, int], str], events: EventBatch, subjects: Sequence[str]) -> None:
        topic = self._config.kafka.events_topic
        places = zip(events.partition.tolist(), events.offset.tolist(), strict=True)
        rows = {row: traced[topic, *place] for row, place in enumerate(places) if (topic, *place) in traced}
        if rows:
            oldest_ms = min(int(events.timestamp_ms[row]) for row in rows)
            link = spans.fold(list(rows.values()), oldest_ms, len(events))
            if link is not None:
                self._audience.trace({subjects[row] for row in rows}, link)

    def publish(self, state: State, generation: Generation | None) -> None:
        """Makes one batch of lists: of waiting calls, and of streams by urgency, which always get a part of it."""
        self._make_way()
        self._mark_catalog(state, generation)
        if len(self.waiting):
            self.waiting.release(state.positions)
        limit = self._config.serving.max_batch
        began_s = time.perf_counter() if self._began_s is None else self._began_s
        places = max(limit - self._calls.weight - self.waiting.ready, self._places_of_streams(limit))
        dues, self._more_due = self._due(places)
        calls, weight = self._take(limit - len(dues))
        if not dues and not calls:
            self._record_ms.clear()
            self._began_s = None
            return
        worked_s = time.thread_time()
        queries = [call.query for call in calls] + [due.query for due in dues]
        rankings = self._rank(queries, state, generation, len(dues))
        for_catalog = sum(due.cause == Cause.CATALOG for due in dues)
        self._catalog_time.spend((time.thread_time() - worked_s) * for_catalog / len(rankings))
        self._note_pace(began_s, weight if self._began_s is not None else len(rankings))
        _count(rankings)
        self._quality.available = state.availability.count
        for call, ranking in zip(calls, rankings, strict=False):
            if isinstance(ranking, Ranking):
                self._quality.send(call.query.subject, ranking)
                call.answer.set_result(ranking)
            else:
                call.answer.set_exception(ranking)
        now_ms = time.time() * 1000
        for due, ranking in zip(dues, rankings[len(calls) :], strict=True):
            if isinstance(ranking, Ranking):
                self._quality.send(due.query.subject, ranking)
                self._audience.deliver(due, ranking)
            made_ms = self._record_ms.pop(due.query.subject, None)
            if due.cause == Cause.EVENTS and made_ms is not None:
                metrics.FRESHNESS_SECONDS.observe(max(0.0, now_ms - made_ms) / 1000)
        if not self._more_due:
            self._record_ms.clear()

    def _mark_catalog(self, state: State, generation: Generation | None) -> None:
        """Tells the streams what has changed in the catalog, as often as its share of the time allows."""
        if self._catalog.look(state) and self._may_tell:
            worked_s = time.thread_time()
            self._audience.mark_catalog(self._catalog.take(state, generation))
            self._catalog_time.spend(time.thread_time() - worked_s)

    def _due(self, places: int) -> tuple[list[Due], bool]:
        """Streams whose lists are made now, at most `places`, and whether others may wait."""
        dues = list(self._audience.due(places, Turn.MODEL))
        for_catalog = min(places - len(dues), _FOR_CATALOG)
        last = self._last_turn()
        if last == Turn.MODEL or not for_catalog:
            return dues, not for_catalog
        more = self._audience.due(for_catalog, last)
        return [*dues, *more], len(more) == for_catalog

    def _last_turn(self) -> Turn:
        """How far down the streams lists are made now, by the time that is left for those of the catalog."""
        if self._catalog_time.ready:
            return Turn.CATALOG
        return Turn.FORBIDDEN if self._catalog_time.ready_if_urgent else Turn.MODEL

    def _weight_of(self, query: Query) -> int:
        return weight_of(query, self._config.state.history, self._config.ranking)

    def _refusal(self, count: int, *, wide: bool) -> Overloaded | None:
        """Why so many further calls, wide or not, may not wait; None where they may. The lock is held."""
        serving, waiting = self._config.serving, self._calls.usual
        calls = f"{waiting} calls"
        if len(self._calls) + count > serving.max_queries:
            return Overloaded(f"at most {serving.max_queries} calls may wait, try again later")
        if wide:
            # Of each place that a usual call needs, a wide one gets a part.
            waiting = self._calls.wide_weight * (WIDE_PART if waiting else 1)
            calls = f"calls that cost as much as {self._calls.wide_weight} usual ones"
        # One batch may always wait: the first lists of all, or few at a time, cost more each than what follows.
        if waiting >= serving.max_batch and waiting * self._list_s * 1000 > serving.max_wait_ms:
            return Overloaded(
                f"{calls} wait, more than get a list in {serving.max_wait_ms:g} ms, try again later",
                retry_after_ms=math.ceil(serving.max_wait_ms),
            )
        return None

    def _make_way(self) -> None:
        """Lets the event loop keep the interpreter for longer while calls are refused.

        Refusing one costs the loop as much as answering one. Where it falls behind, answers wait in it, and so do the
        calls that it has not looked at, up to `serving.max_backlog`.
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
        self._began_s = now_s if len(self._calls) else None

    def _take(self, limit: int) -> tuple[list[Call], int]:
        """Calls to be answered now, up to `limit` by weight, and the weight of those that waited for no record.

        Calls whose record has come take what the others leave, and a part in any case: many may have waited for one
        record, and the others must not wait for all of them.
        """
        if limit > 1:
            places = max(limit - self._calls.weight, limit // _RELEASED, 1)
        else:
            self._released_turn = not self._released_turn
            places = limit if self._released_turn or not len(self._calls) else 0
        released = self.waiting.take_ready(places)
        with self._lock:
            for call in released:
                if self._weight_of(call.query) > 1:
                    self._calls.add([call], self._weight_of(call.query))
            released = [call for call in released if self._weight_of(call.query) == 1]
            taken, weight = self._calls.take(limit - len(released))
        calls = [call for call in taken + released if call.answer.set_running_or_notify_cancel()]
        return calls, weight

    def _rank(
        self, queries: Sequence[Query], state: State, generation: Generation | None, followed: int
    ) -> list[Ranking | Exception]:
        """One list per query. Where they fail together each is tried alone: one bad list must not cost the others.

        Args:
            followed: how many of the queries, the last ones, are of streams.
        """
        try:
            how = self._config.ranking, self.favourite.name, followed, self._threads
            return list(recommend(queries, state, generation, *how))
        except Exception as error:
            if len(queries) == 1:
                _log.exception("the list of %s could not be made", queries[0])
                _FAILED.inc()
                return [error]
            first = len(queries) - followed
            alone = (self._rank([query], state, generation, int(at >= first)) for at, query in enumerate(queries))
            return [ranking for one in alone for ranking in one]


def _count(rankings: Sequence[Ranking | Exception]) -> None:
    for ranking in rankings:
        if isinstance(ranking, Ranking):
            _LISTS[ranking.origin].inc()
            if not ranking.items:
                metrics.LISTS_EMPTY.inc()
