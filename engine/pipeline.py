"""The engine's thread: `step` takes records from the log to fresh lists, and is the only writer of all that it touches.

Other threads ask (`ask`), push models (`install`) and look (`status`); they hand work over and never touch the state.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from engine import metrics
from engine.config import Config
from engine.events.batch import Decoded
from engine.events.codec import Decoder
from engine.events.dead_letter import DeadLetters
from engine.events.source import EventSource
from engine.generation import Frozen, Generation, build_generation, check_fits
from engine.model.weights import decode_weights
from engine.ranking.query import Cause, Position, Query, Ranking
from engine.ranking.recommender import recommend
from engine.state.state import Folded, State, subject_key

_log = logging.getLogger(__name__)

R = TypeVar("R")

_IDLE_POLL_S = 0.2
_REPORT_S = 5.0


class Overloaded(RuntimeError):
    """More calls wait for a list than the configuration allows."""


class StaleVersion(ValueError):
    """A pushed version is not greater than the one that serves."""


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


@dataclass(frozen=True)
class EngineStatus:
    """What GetStatus shows."""

    ready: bool
    model_version: int
    model_metrics: Mapping[str, float]
    model_versions: tuple[int, ...]
    users: int
    items: int
    index_items: int
    events_folded: int
    items_folded: int
    events_dead_lettered: int
    lag: int
    reflects: tuple[Position, ...]
    uptime_s: float


class Pipeline:
    """State, generation and audience, advanced one batch at a time."""

    def __init__(
        self,
        config: Config,
        audience: Audience,
        *,
        on_ready: Callable[[], object] = lambda: None,
    ) -> None:
        self._config = config
        self._audience = audience
        self._on_ready = on_ready
        self._decoder = Decoder(config.kafka, config.events, config.state.features_dim)
        self.state = State(config.state, config.events)
        self.generation: Generation | None = None
        self._versions: list[int] = []
        self._source: EventSource | None = None
        self._ready = False
        self._dead_lettered = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()  # guards the two queues below
        self._calls: deque[tuple[Query, Future[Ranking]]] = deque()
        self._errands: deque[Callable[[], None]] = deque()  # what other threads want done in this one
        self._missed: list[Folded] | None = None  # folded while a generation is being built aside
        self._installing = threading.Lock()
        self._installer: threading.Thread | None = None  # the newest
        self._closing = threading.Event()
        self._record_ms: dict[str, int] = {}  # newest event of each subject, until its list is out
        self._more_due = False  # streams may still wait after the last batch of lists

    # -- the engine's thread ------------------------------------------------------------------------------------------

    def run(self, source: EventSource, dead_letters: DeadLetters, stop: threading.Event) -> None:
        """Steps until `stop` is set; wake the pipeline after setting it.

        Raises:
            SourceError: the log can't be read any more.
        """
        self._source = source
        reported = time.monotonic()
        while not stop.is_set():
            self.step(source, dead_letters)
            if self._ready:
                continue
            if source.caught_up():
                self._become_ready()
            elif time.monotonic() - reported > _REPORT_S:
                reported = time.monotonic()
                _log.info("catching up: %d events folded, %d records to go", self.state.events_folded, source.lag())

    def step(self, source: EventSource, dead_letters: DeadLetters) -> None:
        """One pass: poll, decode, fold, embed, publish.

        1. Poll: the next records, or none if a call or a stream wants a list first.
        2. Decode: columns; what breaks a rule goes to the dead letters.
        3. Fold: the state, and with it its positions in the log.
        4. Embed: the rows that the batch touched, in the tables and in the index.
        5. Publish: lists for the streams concerned and for waiting calls.
        6. Spread: a few of the items whose neighbors moved, now that nobody waits for it.
        """
        self._run_errands()
        # Step 1.
        records = source.poll(0.0 if self._busy() else _IDLE_POLL_S)
        # Step 2.
        with _timed("decode"):
            batch = self._decoder.decode(records)
            self._set_aside(batch, dead_letters)
        # Step 3.
        with _timed("fold"):
            folded = self.state.fold(batch)
        # Step 4.
        with _timed("embed"):
            self._embed(folded)
        # Step 5.
        with _timed("publish"):
            self._mark(batch, folded)
            self._publish()
        # Step 6.
        with _timed("spread"):
            self._spread()
        self._observe(batch, source)

    def _busy(self) -> bool:
        backlog = self.generation.embedder.backlog if self.generation else 0
        return bool(self._calls or self._errands or backlog or self._more_due)

    def _run_errands(self) -> None:
        while True:
            with self._lock:
                if not self._errands:
                    return
                errand = self._errands.popleft()
            errand()

    def _set_aside(self, batch: Decoded, dead_letters: DeadLetters) -> None:
        if batch.rejected:
            dead_letters.publish(batch.rejected)
            self._dead_lettered += len(batch.rejected)
            for rejection in batch.rejected:
                metrics.DEAD_LETTERS.labels(rejection.record.topic).inc()

    def _embed(self, folded: Folded) -> None:
        if self._missed is not None:
            self._missed.append(folded)
        if self.generation:
            metrics.EMBEDDED_ROWS.inc(self.generation.follow(self.state, folded))

    def _spread(self) -> None:
        if self.generation:
            metrics.EMBEDDED_ROWS.inc(self.generation.spread(self.state))
            if self.generation.index.maintain():
                metrics.INDEX_REBUILDS.inc()

    def _mark(self, batch: Decoded, folded: Folded) -> None:
        events = batch.events
        if len(events) == 0 and len(folded.catalog) == 0:
            return
        subjects = list(map(subject_key, events.user_id, events.session_id))
        if self._ready:
            self._record_ms.update(zip(subjects, events.timestamp_ms.tolist(), strict=True))
        self._audience.mark(set(subjects), model=False, catalog=len(folded.catalog) > 0)

    def _publish(self) -> None:
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
        rankings = self._rank([query for query, _ in calls] + [due.query for due in dues])
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

    def _rank(self, queries: Sequence[Query]) -> list[Ranking | Exception]:
        """One list per query. Where they fail together each is tried alone: one bad list must not cost the others."""
        config = self._config
        try:
            return list(recommend(queries, self.state, self.generation, config.ranking, config.kafka.events_topic))
        except Exception as error:
            if len(queries) == 1:
                _log.exception("the list of %s could not be made", queries[0])
                metrics.STEP_FAILURES.labels("publish").inc()
                return [error]
            return [ranking for query in queries for ranking in self._rank([query])]

    def _become_ready(self) -> None:
        self._ready = True
        metrics.READY.set(1)
        _log.info(
            "ready: %d events and %d items folded, %d users", self.state.events_folded, len(self.state.items),
            len(self.state.users),
        )  # fmt: skip
        self._on_ready()

    def _observe(self, batch: Decoded, source: EventSource) -> None:
        metrics.EVENTS_FOLDED.inc(len(batch.events))
        metrics.ITEMS_FOLDED.inc(len(batch.items))
        metrics.USERS.set(len(self.state.users))
        metrics.ITEMS.set(len(self.state.items))
        for (topic, partition), records in source.lag_by_partition().items():
            metrics.LAG.labels(topic, partition).set(records)
        if self.generation:
            metrics.DIRTY_ROWS.set(self.generation.embedder.backlog)
            metrics.INDEX_SIZE.set(self.generation.index.size)
            metrics.INDEX_DELTA.set(self.generation.index.delta_size)
            metrics.INDEX_RECALL.set(self.generation.index.graph_recall)
            metrics.INDEX_REBUILD_FAILURES.set(self.generation.index.failures)

    # -- any thread ---------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Makes the engine's thread look for work now."""
        if self._source is not None:
            self._source.wake()

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
        self.wake()
        return answer

    def install(self, data: bytes, version: int, model_metrics: Mapping[str, float]) -> Future[None]:
        """Checks a pushed model, builds its generation aside and makes it live; on any error the old one goes on.

        The future fails with WeightsError (the file does not fit) or StaleVersion.
        """
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # from here on it can't be taken back

        def work() -> None:
            try:
                with self._installing:
                    self._install(data, version, model_metrics)
                done.set_result(None)
            except Exception as error:
                with self._lock:
                    self._errands.append(self._forget_missed)
                done.set_exception(error)

        self._installer = threading.Thread(target=work, name="install", daemon=True)
        self._installer.start()
        return done

    def _install(self, data: bytes, version: int, model_metrics: Mapping[str, float]) -> None:
        self._check_version(version)
        weights = decode_weights(data)
        check_fits(weights, self._config)
        frozen = self._in_engine_thread(self._freeze)
        generation = build_generation(weights, version, dict(model_metrics), frozen, self._config, self._closing.is_set)
        self._in_engine_thread(lambda: self._adopt(generation))

    def _check_version(self, version: int) -> None:
        serving = self.generation.version if self.generation else 0
        if version <= serving:
            raise StaleVersion(f"version must be > {serving}, the one that serves, got {version}")

    def _freeze(self) -> Frozen:
        self._missed = []
        return Frozen.of(self.state)

    def _forget_missed(self) -> None:
        self._missed = None

    def _adopt(self, generation: Generation) -> None:
        if self._missed:
            generation.follow(self.state, Folded.joined(self._missed))
        self._missed = None
        old, self.generation = self.generation, generation
        if old:
            old.index.close()
        self._versions.append(generation.version)
        metrics.MODEL_VERSION.set(generation.version)
        _log.info("model version %d serves, %d items in its index", generation.version, generation.index.size)
        self._audience.mark((), model=True, catalog=False)

    def close(self) -> None:
        """Ends what runs aside, after `run` has returned: a thread cut off inside a library would abort the process."""
        self._closing.set()
        self._run_errands()
        while self._installer is not None and self._installer.is_alive():
            self._installer.join(0.05)
            self._run_errands()  # it may wait for one
        if self.generation:
            self.generation.index.close()

    def _in_engine_thread(self, errand: Callable[[], R]) -> R:
        result: Future[R] = Future()

        def run() -> None:
            try:
                result.set_result(errand())
            except Exception as error:
                result.set_exception(error)

        with self._lock:
            self._errands.append(run)
        self.wake()
        return result.result()

    def status(self) -> EngineStatus:
        """A look from outside; each number is current, though not all of the same instant."""
        state, generation = self.state, self.generation
        topic = self._config.kafka.events_topic
        return EngineStatus(
            ready=self._ready,
            model_version=generation.version if generation else 0,
            model_metrics=dict(generation.metrics) if generation else {},
            model_versions=tuple(self._versions),
            users=len(state.users),
            items=len(state.items),
            index_items=generation.index.size if generation else 0,
            events_folded=state.events_folded,
            items_folded=state.items_folded,
            events_dead_lettered=self._dead_lettered,
            lag=self._source.lag() if self._source else 0,
            reflects=tuple(
                Position(t, p, offset - 1) for (t, p), offset in sorted(state.positions.items()) if t == topic
            ),
            uptime_s=time.monotonic() - self._started,
        )


@contextmanager
def _timed(stage: str) -> Iterator[None]:
    with metrics.STEP_SECONDS.labels(stage).time():
        yield
