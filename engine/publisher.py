"""Makes lists for the calls that wait and for the streams that an event, a model or the catalog concerns."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from typing import Protocol

from engine import metrics
from engine.config import Config
from engine.events.batch import Decoded
from engine.generation import Generation
from engine.ranking.query import Cause, Query, Ranking
from engine.ranking.recommender import recommend
from engine.state.state import Folded, State, subject_key

_log = logging.getLogger(__name__)


class Overloaded(RuntimeError):
    """More calls wait for a list than the configuration allows."""


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


class Publisher:
    """Calls may come from any thread; all else happens in the engine's."""

    def __init__(self, config: Config, audience: Audience) -> None:
        self._config = config
        self._audience = audience
        self._lock = threading.Lock()  # guards the calls
        self._calls: deque[tuple[Query, Future[Ranking]]] = deque()
        self._record_ms: dict[str, int] = {}  # newest event of each subject, until its list is out
        self._more_due = False  # streams may still wait after the last batch of lists

    @property
    def busy(self) -> bool:
        """Whether a call or a stream waits."""
        return bool(self._calls or self._more_due)

    def ask(self, query: Query) -> Future[Ranking]:
        """A list from the state as it will be at the next step.

        Raises:
            Overloaded: more than serving.max_queries calls wait already.
        """
        answer: Future[Ranking] = Future()
        with self._lock:
            if len(self._calls) >= self._config.serving.max_queries:
                raise Overloaded(f"at most {self._config.serving.max_queries} calls may wait, try again later")
            self._calls.append((query, answer))
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
        """Makes one batch of lists; waiting calls first, then streams by urgency."""
        limit = self._config.serving.max_batch
        with self._lock:
            calls = [self._calls.popleft() for _ in range(min(limit, len(self._calls)))]
        calls = [call for call in calls if call[1].set_running_or_notify_cancel()]
        dues = self._audience.due(limit - len(calls))
        self._more_due = len(dues) + len(calls) == limit
        if not dues and not calls:
            self._record_ms.clear()
            return
        rankings = self._rank([query for query, _ in calls] + [due.query for due in dues], state, generation)
        for (_, answer), ranking in zip(calls, rankings, strict=False):
            if isinstance(ranking, Ranking):
                answer.set_result(ranking)
            else:
                answer.set_exception(ranking)
        now_ms = time.time() * 1000
        for due, ranking in zip(dues, rankings[len(calls) :], strict=True):
            if isinstance(ranking, Ranking):
                self._audience.deliver(due, ranking)
            made_ms = self._record_ms.pop(due.query.subject, None)
            if due.cause == Cause.EVENTS and made_ms is not None:
                metrics.FRESHNESS_SECONDS.observe(max(0.0, now_ms - made_ms) / 1000)
        if not self._more_due:
            self._record_ms.clear()

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
