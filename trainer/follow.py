"""Follows the log: folds what comes, and begins anew wherever another part of it is assigned."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from engine.events.batch import Record
from engine.events.codec import Decoder
from engine.events.kafka import KafkaSource
from engine.events.opening import opening
from engine.events.source import Assignment, EventSource, start_at_beginning
from engine.events.topics import ensure_topics
from engine.signals import Stopped
from trainer import metrics
from trainer.archive.archive import Archive
from trainer.config import TrainerConfig
from trainer.progress import Reading
from trainer.replay import Replay

_PAUSE_S = 0.1  # training is in no hurry for a single record
_POLL_S = 0.2
_log = logging.getLogger(__name__)


class Follower:
    """Folds a source's records into a `Replay`.

    Args:
        stop: ends the folding of the archive, which may be long.
        archive: of the events that are read; closed by its owner.

    Attributes:
        replay: what was folded of what is assigned now; None where nothing is.
        new_events: events folded since it was last set to 0.
        refused: records of what is assigned now that break a rule, and the newest reason.
    """

    def __init__(
        self, config: TrainerConfig, source: EventSource, stop: threading.Event, archive: Archive | None = None
    ) -> None:
        self._config = config
        self._source = source
        self._stop = stop
        self._archive = archive
        self._decoder = Decoder(config.kafka, config.events, config.state.features_dim)
        self._assignment: Assignment | None = None  # what is read now
        self.replay: Replay | None = None
        self.new_events = 0
        self.refused: tuple[int, str] = (0, "")
        self._read = 0  # records of what is assigned now
        self._reading: Reading | None = None  # until the log is caught up with

    def fold_next(self) -> bool:
        """Polls once, folds and archives what came; returns whether anything did.

        Raises:
            SourceError: the log can't be read any more.
            ArchiveError: the archive can't be used any more.
        """
        self._follow()
        records = self._source.poll(_POLL_S)
        if self._archive is not None:
            self._archive.flush_if_due()
        if self.replay is None or not records:
            return False
        self._fold(self.replay, records)
        self._report(self.replay, len(records))
        return True

    def caught_up(self) -> bool:
        """Whether all is folded that the log held when it was assigned."""
        return self.replay is not None and self._source.caught_up()

    def _report(self, replay: Replay, records: int) -> None:
        """Says now and then how much of the log is read, until it is caught up with."""
        self._read += records
        if self._reading is None:
            return
        if self._source.caught_up():
            self._reading = None
            _log.info("the log is read: %s records, %s events at hand", f"{self._read:,}", f"{len(replay):,}")
        else:
            self._reading.update(self._read, lambda: self._read + self._source.lag())

    def _follow(self) -> None:
        """An empty store for a new assignment, which is read from its beginning.

        A store whose partitions change could neither drop what it no longer reads nor learn what others read before.
        """
        if self.replay is not None and self._source.assignment() is self._assignment:
            return
        self._assignment, self.replay, self.new_events = start_at_beginning(self._source), None, 0
        self.refused, self._read, self._reading = (0, ""), 0, Reading("reading the log", "records")
        if self._assignment is not None:
            config, topic = self._config, self._config.kafka.events_topic
            self.replay = Replay(
                config.state,
                config.events,
                config.trainer.max_log_events,
                events_topic=topic,
                partitions=max(1, self._assignment.totals.get(topic, 0)),
                ranking=config.ranking,
            )
            if self._archive is not None:
                self._fold_archived(self.replay, self._archive, self._assignment)

    def _fold_archived(self, replay: Replay, archive: Archive, assignment: Assignment) -> None:
        """Begins with what the log no longer has."""
        reading, archived = (
            Reading("reading the archive for what the log no longer has", "archived events"),
            archive.rows,
        )
        for batch in archive.replay(assignment):
            if self._stop.is_set():
                self.replay = None  # half of the past is none to go on from
                return
            self._count(len(replay.fold(batch).event))
            reading.update(self.new_events, lambda: archived)
        _log.info("%d events from the archive that the log no longer has", self.new_events)

    def _fold(self, replay: Replay, records: Sequence[Record]) -> None:
        batch = self._decoder.decode(records)
        folded = replay.fold(batch)
        self._count(len(folded.event))
        if batch.rejected:
            self.refused = self.refused[0] + len(batch.rejected), batch.rejected[-1].reason
        if self._archive is not None:
            self._archive.add(batch, folded)

    def _count(self, events: int) -> None:
        self.new_events += events
        metrics.EVENTS_READ.inc(events)


def replay_log(config: TrainerConfig, source: EventSource, stop: threading.Event) -> Replay:
    """All that the log holds at the start.

    Raises:
        SourceError: the log can't be read any more.
        Stopped: `stop` was set.
    """
    follower = Follower(config, source, stop)
    while not stop.is_set():
        follower.fold_next()
        if follower.replay is not None and follower.caught_up():
            return follower.replay
    raise Stopped


@contextmanager
def kafka_source(config: TrainerConfig, stop: threading.Event) -> Iterator[EventSource]:
    """The log in Kafka, once a broker answers.

    Raises:
        Stopped: `stop` was set before one did.
    """
    # Engines may share the partitions; a model is learned from all of them.
    everything = config.kafka.model_copy(update={"share": False})

    def attempt(opened: ExitStack) -> KafkaSource:
        ensure_topics(everything)
        return opened.enter_context(closing(KafkaSource(everything, max_pause_s=_PAUSE_S)))

    with opening(everything, attempt, stop, _log.warning) as source:
        if source is None:
            raise Stopped
        yield source
