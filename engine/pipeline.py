"""The engine's thread: `step` takes records from the log to fresh lists, and is the only writer of all that it touches.

Other threads ask (`ask`), push models (`install`) and look (`status`); they hand work over and never touch the state.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from engine import metrics
from engine.catalog_recall import CatalogRecall, ReadItems
from engine.catalog_recheck import NO_DOUBTS, CatalogRecheck
from engine.checkpoint import Checkpoints, SnapshotsOff
from engine.config import Config
from engine.copies import Copies
from engine.errands import Errands, begun, in_background
from engine.events.batch import Decoded, EventBatch
from engine.events.codec import Decoder
from engine.events.dead_letter import DeadLetters
from engine.events.records import traced_of
from engine.events.source import Assignment, EventSource, Partition, SourceError
from engine.exports import Exports
from engine.generation import FrozenCopy, Generation
from engine.generations import Generations, Missed
from engine.installer import Installer
from engine.partitions import Snapshots, take
from engine.passing_time import new_state, pass_time, settled
from engine.publisher import Audience, Due, NotFollowing, Overloaded, Publisher
from engine.readiness import ModelGate, Readiness
from engine.record_counts import RecordCounts
from engine.state.copying import StateCopy
from engine.state.digest import StateDigest, state_digest
from engine.state.export import Subject
from engine.state.state import Folded
from engine.status import EngineStatus, StateMetrics, announce, look

__all__ = ["Audience", "Due", "NotFollowing", "Overloaded", "Pipeline", "SnapshotsOff"]

_log = logging.getLogger(__name__)

_IDLE_POLL_S = 0.2
_EXPORTS_S = 0.01  # between two looks whether there is time for another export
_REPORT_S = 5.0
_OBSERVE_S = 0.1  # between two looks for the metrics
_GATHERED = 4  # steps whose share of what spreads is recomputed together while records keep coming


class Pipeline:
    """State, generation and audience, advanced one batch at a time.

    Args:
        snapshots: gives the snapshots of the log that is assigned; None: none are taken.
        on_ready: called once the log is caught up with, and whenever it answers again after a silence.
        on_unready: called when the log has not answered for serving.max_log_age_s.
        read_items: reads the items topic again, for records that a full catalog has dropped too early.
        models: keeps it from being ready while the model that is to serve is on its way; None: nobody brings one.

    Attributes:
        installer: builds models and makes them live.
        waiting: the calls whose lists must reflect a record that is not folded yet.
        ask, ask_all: of the publisher.
    """

    def __init__(
        self,
        config: Config,
        audience: Audience,
        snapshots: Callable[[Assignment], Snapshots] | None = None,
        *,
        on_ready: Callable[[], object] = lambda: None,
        on_unready: Callable[[], object] = lambda: None,
        read_items: ReadItems | None = None,
        models: ModelGate | None = None,
    ) -> None:
        self._config = config
        self._audience = audience
        self._publisher = Publisher(config, audience, self.wake)
        self.waiting = self._publisher.waiting
        self.ask, self.ask_all = self._publisher.ask, self._publisher.ask_all
        self._open_snapshots = snapshots
        self._snapshots: Snapshots | None = None
        max_age_s, gate = config.serving.max_log_age_s, models or ModelGate(settled=True)
        self._readiness = Readiness(max_age_s, on_ready, on_unready, gate)
        self._decoder = Decoder(config.kafka, config.events, config.state.features_dim)
        self.state = new_state(config)
        self.generations = Generations()
        self._source: EventSource | None = None
        self._letters: DeadLetters | None = None
        self._ready = self._caught_up = False  # once; with all that the log held when partitions last came
        self._counts = RecordCounts(config.kafka.events_topic, config.kafka.items_topic)
        self._unspread = 0  # steps since anything was let spread
        self._rest_s = self._observe_at = 0.0  # while nobody waits, before more is let spread; when metrics are due
        self._metrics = StateMetrics(config.state)
        self._started = time.monotonic()
        self.errands = Errands(self.wake)
        self._exports = Exports(config.serving.max_exports)
        self._assignment: Assignment | None = None
        self._copies = Copies()
        self._checkpoints: Checkpoints | None = None
        self._recheck: CatalogRecheck | None = None  # of the catalog that a snapshot had
        self._recall = CatalogRecall(config, read_items, self.wake)
        self.installer = Installer(
            config,
            self.generations,
            state=lambda: self.state,
            freeze=self._freeze,
            in_engine_thread=self.errands.run,
            announce=self._announce,
        )
        self.install = self.installer.install
        self.roll_back = self.installer.roll_back

    @property
    def generation(self) -> Generation | None:
        """The one that serves."""
        return self.generations.serving

    # -- the engine's thread ------------------------------------------------------------------------------------------

    def run(self, source: EventSource, dead_letters: DeadLetters, stop: threading.Event) -> None:
        """Steps until `stop` is set; wake the pipeline after setting it.

        Raises:
            SourceError: the log can't be read any more.
        """
        reported = time.monotonic()
        while not stop.is_set():
            self.step(source, dead_letters)
            if self._caught_up or self._assignment is None or self._recheck is not None:
                continue
            if source.caught_up() and self._recall.settled(self.state):
                self._become_ready()
            elif time.monotonic() - reported > _REPORT_S:
                reported = time.monotonic()
                _log.info("catching up: %d events folded, %d records to go", self.state.events_folded, source.lag())
        if self._checkpoints is not None and self._recheck is None:
            self._checkpoints.close(self.state)

    def step(self, source: EventSource, dead_letters: DeadLetters) -> None:
        """One pass: poll, decode, fold, embed, publish, spread, checkpoint.

        0. Follow: the partitions that are read here, and from where.
        1. Poll: the next records, or none if a call or a stream wants a list first.
        2. Decode: columns; what breaks a rule goes to the dead letters.
        3. Fold: the state, and with it its positions in the log.
        4. Embed: the rows that the batch touched, in the tables and in the index, which also goes by items' times.
        5. Publish: lists for the streams concerned and for waiting calls.
        6. Spread: a few of the items whose neighbors moved, now that nobody waits for it; while records keep coming,
           those of several steps together, which costs hardly more than those of one.
        7. Checkpoint: one piece of a copy of the state, for a snapshot or for a new model.
        """
        self._source, self._letters = source, dead_letters
        self.errands.work_off()
        self._exports.answer(self.state)
        # Step 0.
        self._follow(source)
        # Step 1.
        records = source.poll(self._patience_s())
        # Step 2.
        with metrics.timed("decode"):
            if self._recheck is not None:
                records, known = self._recheck.sift(records, self.state)
                self._counts.known(known)
            batch = self._decoder.decode(records)
            if batch.rejected:
                dead_letters.publish(batch.rejected)
            self._counts.polled(records, batch, self.state)
        # Step 3.
        with metrics.timed("fold"):
            folded = self.state.fold(batch)
            self._counts.folded(batch, folded, self.state)
            if self._recheck is not None:
                self._delete_missed(self._recheck, batch, source)
        # Step 4.
        with metrics.timed("embed"):
            self._embed(folded)
            self._change_catalog(pass_time(self.state))
            if self._recheck is None:
                self._change_catalog(self._recall.step(self.state, source.caught_up(), self._caught_up))
        # Step 5.
        with metrics.timed("publish"):
            self._publisher.mark(batch, folded, live=self._caught_up, traced=traced_of(records))
            self._publisher.publish(self.state, self.generation)
        # Step 6.
        with metrics.timed("spread"):
            self._spread(idle=not records)
        # Step 7.
        with metrics.timed("checkpoint"):
            self._checkpoint()
        self._observe(source)

    def _follow(self, source: EventSource) -> None:
        assignment = source.assignment()
        if assignment is None or assignment is self._assignment:
            return
        topic = self._config.kafka.events_topic
        partitions = assignment.totals.get(topic, 1)
        if self._assignment is None:
            self.state = new_state(self._config, partitions)
            if self._open_snapshots is not None:
                self._snapshots = self._open_snapshots(assignment)
                self._checkpoints = Checkpoints(
                    self._config.snapshot, self._snapshots, self._copies, self._settle, self._commit
                )
        elif partitions != self.state.partitions:
            raise SourceError(
                f"topic {topic!r} has {partitions} partitions now, and had {self.state.partitions}: restart every"
                " engine, so that users are found where their events go now"
            )
        self._caught_up = False
        metrics.CAUGHT_UP.set(0)
        # An engine that serves goes on with the partitions it has, whatever it can't find of those that come.
        may_lose = self._ready or self._config.snapshot.on_mismatch == "replay"
        doubts = self._recheck.doubts if self._recheck is not None else NO_DOUBTS
        taken = take(assignment, self.state, self._snapshots, may_lose=may_lose, doubts=doubts)
        recheck = CatalogRecheck(assignment, taken.unchecked, self._decoder, self._config.state.max_items, taken.doubts)
        self._recheck = recheck if taken.unchecked else None
        self._metrics.count(self.state)
        for change in taken.changes:
            self._embed(change)
        source.start(taken.positions)
        self._assignment = assignment

    def _delete_missed(self, recheck: CatalogRecheck, batch: Decoded, source: EventSource) -> None:
        """Deletes the items whose deletions no record tells any more, once the items topic has been read."""
        recheck.note(batch)
        gone = recheck.gone(self.state, source)
        if gone is not None:
            self._recheck = None
            self._change_catalog(self.state.delete_items(gone))

    def _change_catalog(self, changed: Folded | None) -> None:
        if changed is not None:
            self._embed(changed)
            self._publisher.mark(Decoded(EventBatch.empty(), (), (), {}), changed, live=self._caught_up)

    def _checkpoint(self) -> None:
        # A snapshot of a catalog that was not held against its topic would be taken for one that was.
        if self._checkpoints is not None and self._recheck is None:
            self._checkpoints.step(self.state)
        if self._assignment is not None:  # Until then this state is a placeholder.
            self._copies.step()

    def _settle(self) -> None:
        if self._letters is not None:
            self._letters.settle()

    def _commit(self, positions: Mapping[Partition, int]) -> None:
        if self._source is not None and self._assignment is not None:
            read = self._assignment.partitions
            self._source.commit({partition: at for partition, at in positions.items() if partition in read})

    def _patience_s(self) -> float:
        """How long to wait for records: not at all where there is other work, or only to give others a turn."""
        waited_for = self._publisher.busy or self.errands or not settled(self.state)
        if waited_for or (self._assignment is not None and len(self._copies)):
            return 0.0
        if self._exports:
            return 0.0 if self._exports.ready else _EXPORTS_S
        return self._rest_s if self.generation and self.generation.embedder.backlog else _IDLE_POLL_S

    def _embed(self, folded: Folded) -> None:
        metrics.EMBEDDED_ROWS.inc(self.generations.follow(self.state, folded))

    def _spread(self, *, idle: bool) -> None:
        self._unspread = min(self._unspread + 1, _GATHERED)
        self._rest_s = 0.0
        if not self.generation and idle and self._caught_up:
            self._publisher.favourite.step(self.state)
        elif self.generation and (idle or self._unspread >= _GATHERED):
            began_s = time.monotonic()
            metrics.EMBEDDED_ROWS.inc(self.generation.spread(self.state, self._unspread))
            self._unspread = 0
            if self.generation.index.maintain():
                metrics.INDEX_REBUILDS.inc()
                metrics.INDEX_REBUILD_SECONDS.observe(self.generation.index.last_rebuild_s)
            # Spreading is never urgent: it takes half of the time at most, and none from threads that serve.
            self._rest_s = min(time.monotonic() - began_s, _IDLE_POLL_S) if idle else 0.0

    def _observe(self, source: EventSource) -> None:
        now_s = time.monotonic()
        if now_s >= self._observe_at:
            self._observe_at = now_s + _OBSERVE_S
            self._metrics.observe(self.state, self.generation, source)
            self._readiness.observe(source.health())

    def _become_ready(self) -> None:
        self._caught_up = True
        metrics.CAUGHT_UP.set(1)
        if self._ready:
            _log.info("caught up with the partitions that came: %d events folded", self.state.events_folded)
            return
        self._ready = True
        counts = self.state.events_folded, self.state.items.count, self.state.user_count
        _log.info("ready: %d events and %d items folded, %d users", *counts)
        self._readiness.catch_up()

    # -- any thread ---------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Makes the engine's thread look for work now."""
        if self._source is not None:
            self._source.wake()

    def _freeze(self) -> Future[tuple[FrozenCopy, Missed]]:
        """A copy of the state as it will be when its turn comes, and a note of what is folded from then on."""
        whole: Future[tuple[FrozenCopy, Missed]] = Future()

        def begin() -> FrozenCopy:
            self.generations.begin()
            return FrozenCopy(self.state, self._config.snapshot.piece_bytes)

        def done(copy: FrozenCopy) -> None:
            assert self.generations.building is not None
            whole.set_result((copy, self.generations.building))

        self.errands.run(lambda: self._copies.want(begin, done, whole.set_exception))
        return whole

    def _announce(self, generation: Generation | None) -> None:
        announce(generation)
        self._audience.mark((), model=True)

    def close(self) -> None:
        """Ends what runs aside, after `run` has returned: a thread cut off inside a library would abort the process."""
        self.installer.closing.set()
        self._recall.close()
        over = NotFollowing("the engine is stopping")
        self._exports.close()
        while True:
            self.errands.work_off()
            if self._checkpoints is not None:
                self._checkpoints.abandon(over)
            self._copies.drop(over)  # the state may have been left half folded
            if not self.installer.running:
                break
            self.installer.join(0.05)  # it may wait for an errand, or for a copy
        self.generations.close()
        self._publisher.close()

    def export(self, subject: str) -> Future[tuple[Subject, ...]]:
        """All that is held about a user or an anonymous session, by its subject_key."""
        answer = self._exports.ask(subject)
        self.wake()
        return answer

    def snapshot(self) -> Future[Mapping[Partition, int]]:
        """Takes a snapshot now; the answer is the next offset of each partition, once it is safe.

        Raises:
            SnapshotsOff: there is no folder for them.
        """
        if self._open_snapshots is None:
            raise SnapshotsOff("snapshot.enabled must be true, and snapshot.dir a folder that can be written")
        answer: Future[Mapping[Partition, int]] = begun()

        def want() -> None:
            if self._checkpoints is None:
                answer.set_exception(NotFollowing("nothing of the log is read yet"))
            else:
                self._checkpoints.want(answer)

        self.errands.submit(want)
        return answer

    def digest(self) -> Future[StateDigest]:
        """Digests of the state at one moment, made in the background from a copy."""
        answer: Future[StateDigest] = begun()

        def begin() -> StateCopy:
            return StateCopy(self.state, self._config.snapshot.piece_bytes)

        def done(copy: StateCopy) -> None:
            state, events = self._config.state, self._config.events
            in_background("digest", lambda: state_digest(copy.saved(), state, events), answer)

        self.errands.submit(lambda: self._copies.want(begin, done, answer.set_exception))
        return answer

    def status(self) -> EngineStatus:
        """A look from outside; each number is current, though not all of the same instant."""
        return look(
            self.state,
            self.generation,
            self._source,
            ready=self._readiness.ready,
            caught_up=self._caught_up,
            model_versions=tuple(self.generations.versions),
            dead_lettered=self._counts.dead_lettered,
            started_s=self._started,
            snapshot_time_s=self._checkpoints.taken_s if self._checkpoints else None,
        )
