"""A source that reads the log in Kafka, all of it or this process's share.

A thread polls Kafka ahead of the fold into a bounded queue of batches. It goes on polling, with every partition paused,
while the queue is full or while its reader restores a snapshot: the group takes the partitions of whoever falls silent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    InvalidSessionTimeoutError,
    KafkaConnectionError,
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
)

from engine.config import KafkaConfig
from engine.events.broker_client import BrokerLink, open_client
from engine.events.committer import Committer
from engine.events.connection import connection_settings
from engine.events.consumer_settings import EMPTY_FETCH_MS, consumer_settings
from engine.events.deletions import deletions_from
from engine.events.diagnosis import connection_problem
from engine.events.log_consumer import LogConsumer
from engine.events.log_watch import LogWatch
from engine.events.read_ahead import ReadAhead, pack_fetched
from engine.events.records import Records
from engine.events.sharing import Membership
from engine.events.source import Assignment, BrokerAway, LogHealth, LogRange, Partition, SourceError, starting_offsets
from engine.events.topic_watch import TopicWatch
from engine.failures import told

log = logging.getLogger(__name__)

_ROOM_S = 0.05  # how long a full queue is waited for before the partitions are paused
# How long polls may take. A group is joined within a poll, and the client forgets an answer that comes between two and
# asks to join anew: so members make no pause between them, and they are long while the group forms. Each lasts its time
# where all is paused, even if the group has formed before.
_POLL_MS = 50
_JOINING_POLL_MS = 200
_PAUSE_S = 0.005  # between polls of one that is no member, while it has no room
_LOOK_S = 0.1  # how often positions are looked at while nothing comes
_COMMIT_BOOTSTRAP_MS = 2000
_CLOSE_MS = 3000


class KafkaSource:
    """Reads topics from Kafka; an `EventSource`.

    With `kafka.share` the engines of `kafka.group_id` share the partitions of every topic but the catalog's; without,
    everything is read. `assignment` is None again from the moment the group takes the partitions back until it has
    dealt them out anew. `start` concerns the assignment that was told last: if another came since, nothing happens, and
    `assignment` tells the new one. A partition whose position is not given starts at its beginning.

    The items topic as it stands at the assignment comes before any event, so that history meets a known catalog.

    Args:
        topics: those to read; the events and items topics unless given.
        max_pause_s: how much later than at once a record may be noticed after a silence where a broker holds no
            fetch; longer costs less.
        traced: whether records say which of them are traced.

    Raises:
        SourceError: the broker is away or a topic doesn't exist.
    """

    def __init__(
        self,
        config: KafkaConfig,
        topics: Sequence[str] | None = None,
        *,
        max_pause_s: float = EMPTY_FETCH_MS / 1000,
        traced: bool = False,
    ) -> None:
        self._config = config
        self._topics = topics or (config.events_topic, config.items_topic)
        # Guarded by `_ready`; the consumer itself belongs to the polling thread once that runs.
        self._ready = threading.Condition()
        self._queue = ReadAhead(
            config.queue_batches * config.max_poll_records, config.queue_batches * config.max_poll_bytes
        )
        self._woken = False
        self._failure: SourceError | None = None
        self._assignment: Assignment | None = None
        self._told: Assignment | None = None  # as `assignment` returned it last
        self._start: dict[TopicPartition, int] | None = None  # a new object at every start
        self._returned: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}  # the last stable offsets, as last known
        self._held: dict[TopicPartition, str] = {}  # why partitions can't be read further now
        self._closing = threading.Event()
        # The polling thread's own.
        self._arrived: list[TopicPartition] | None = None  # assigned, and their offsets not looked up yet
        self._seeked: dict[TopicPartition, int] | None = None  # the start that the consumer reads from
        self._polled: dict[TopicPartition, int] = {}
        self._flowing: frozenset[TopicPartition] = frozenset()  # not paused
        self._looked_s = 0.0
        settings = consumer_settings(config) | {"empty_fetch_ms": 1000 * max_pause_s}
        self._link = BrokerLink(settings["kafka_client"])
        self._began_s = time.monotonic()
        try:
            self._consumer = LogConsumer(traced=traced, **settings | {"kafka_client": self._link})
        except KafkaError as error:
            self._link.close()
            problem = connection_problem(config, connection_settings(config))
            kind = BrokerAway if problem or error.retriable else SourceError
            raise kind(problem or f"no Kafka broker answers at {config.bootstrap}: {error}") from error
        self._watch = LogWatch(config, self._consumer)
        self._committer = Committer(config.group_id, self._committing_consumer, drive=not config.share)
        self._topic_watch = TopicWatch(config, self._topics)  # Looking up what the log holds asks it.
        try:
            self._subscribe()
        except BaseException as error:
            self._topic_watch.close()
            self._consumer.close(timeout_ms=_CLOSE_MS)
            if isinstance(error, KafkaError):
                kind = BrokerAway if error.retriable else SourceError
                raise kind(f"the topics at {config.bootstrap} can't be read: {error}") from error
            raise
        self._woken = False  # nobody has polled yet
        self._thread = threading.Thread(target=self._run, name="kafka-source", daemon=True)
        self._thread.start()

    def assignment(self) -> Assignment | None:
        with self._ready:
            self._told = self._assignment
            return self._told

    def start(self, positions: Mapping[Partition, int]) -> None:
        """See `EventSource`.

        Raises:
            SourceError: a position lies outside the log; the message names the partition, the offset and the range.
        """
        with self._ready:
            if self._told is None or self._told is not self._assignment:
                return
            offsets = starting_offsets(self._told, positions)
            self._queue.clear()
            self._start = {TopicPartition(*partition): offset for partition, offset in offsets.items()}
            self._returned = dict(self._start)
            self._ready.notify_all()

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """See `EventSource`. Partitions that are not assigned, or no more, are left out."""
        with self._ready:
            assigned = self._assignment.partitions if self._assignment else {}
            self._committer.note({TopicPartition(*p): at for p, at in positions.items() if p in assigned})

    def poll(self, timeout_s: float) -> Records:
        """Returns the next records, or none after `timeout_s` or an earlier `wake`. See `EventSource`."""
        with self._ready:
            self._ready.wait_for(lambda: self._queue or self._woken or self._failure, timeout_s)
            self._woken = False
            if not self._queue and self._failure:
                raise self._failure
            batches = self._queue.take(self._config.max_poll_records, self._config.max_poll_bytes)
            for batch in batches:
                self._returned.update(batch.positions)
            self._ready.notify_all()
            return Records.joined([batch.records for batch in batches])

    def wake(self) -> None:
        with self._ready:
            self._woken = True
            self._ready.notify_all()

    def lag(self) -> int:
        return sum(self.lag_by_partition().values())

    def lag_by_partition(self) -> dict[Partition, int]:
        """Records not returned yet by (topic, partition), as of the last fetch of each; of the assigned ones."""
        with self._ready:
            return {
                (partition.topic, partition.partition): max(0, end - self._returned[partition])
                for partition, end in self._ends.items()
            }

    def caught_up(self) -> bool:
        with self._ready:
            if self._assignment is None or self._start is None:
                return False
            # A partition that can't be read further must not keep the others from serving.
            return all(
                self._returned[TopicPartition(*partition)] >= log_range.end or partition in self._held
                for partition, log_range in self._assignment.partitions.items()
            )

    def health(self) -> LogHealth:
        answered_s = self._link.answered_s() or self._began_s
        return LogHealth(time.monotonic() - answered_s, len(self._topic_watch.problems))

    def stable_offsets(self) -> dict[Partition, int]:
        """See `EventSource`."""
        with self._ready:
            return {(partition.topic, partition.partition): end for partition, end in self._ends.items()}

    def held(self) -> dict[Partition, str]:
        """See `EventSource`."""
        with self._ready:
            return {(partition.topic, partition.partition): reason for partition, reason in self._held.items()}

    def close(self) -> None:
        self._closing.set()
        with self._ready:
            self._ready.notify_all()
        self._thread.join()
        self._topic_watch.close()
        self._committer.close()
        self._consumer.close(timeout_ms=_CLOSE_MS)

    # -- the polling thread -------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        found = {topic: sorted(self._consumer.partitions_for_topic(topic)) for topic in self._topics}
        for topic, partitions in found.items():
            if not partitions:
                raise SourceError(f"topic {topic!r} does not exist at {self._config.bootstrap}")
        if self._config.share:
            self._consumer.subscribe(list(self._topics), listener=Membership(self._reassigned))
            return
        everything = [TopicPartition(topic, number) for topic in self._topics for number in found[topic]]
        self._consumer.assign(everything)
        self._reassigned(everything)
        self._look_up()

    def _reassigned(self, partitions: Collection[TopicPartition] | None) -> None:
        """Drops all that was read ahead; called within the consumer's `poll`, so it does not ask Kafka anything."""
        self._arrived = None if partitions is None else sorted(partitions)
        self._flowing = frozenset()
        if partitions:
            # Held back, and with some position, so that the consumer does not look for one itself.
            self._consumer.pause(*partitions)
            for partition in partitions:
                self._consumer.seek(partition, 0)
        self._committer.forget()
        with self._ready:
            self._assignment = self._start = None
            self._queue.clear()
            self._returned, self._ends, self._held = {}, {}, {}
            self._woken = True
            self._ready.notify_all()

    def _look_up(self) -> None:
        """Learns what the log holds of the partitions that arrived, and lets the reader know of them."""
        partitions = self._arrived or []
        begin = self._consumer.beginning_offsets(partitions) if partitions else {}
        end = self._consumer.end_offsets(partitions) if partitions else {}
        ranges = {(p.topic, p.partition): LogRange(begin[p], end[p]) for p in partitions}
        totals = {topic: len(self._consumer.partitions_for_topic(topic) or ()) for topic in self._topics}
        gone = next((topic for topic, total in totals.items() if total == 0), None)
        if gone is not None:
            raise SourceError(self._topic_watch.explain() or f"topic {gone!r} has no partitions any more")
        if self._config.share and all(p.topic != self._config.events_topic for p in partitions):
            log.warning(
                "this engine has no partition of %s: its group has more engines than the topic has partitions (%d);"
                " stop one, or add partitions",
                self._config.events_topic,
                totals.get(self._config.events_topic, 0),
            )
        items_topic = self._config.items_topic
        items = {p: LogRange(begin[p], end[p]) for p in partitions if p.topic == items_topic}
        shown_from = deletions_from(self._consumer, self._topic_watch.state(items_topic), items) if items else {}
        identity = self._consumer.identity(self._topics)
        if not identity.topic_ids:  # A broker that gives ids gives one to each topic.
            identity = replace(identity, began_ms=self._consumer.first_record_ms(self._config.events_topic))
        self._arrived = None
        with self._ready:
            self._returned, self._ends = dict(begin), dict(end)
            self._assignment = Assignment(ranges, totals, identity, shown_from)
            self._woken = True
            self._ready.notify_all()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._turn()
            except (OffsetOutOfRangeError, LogTruncationError) as error:
                lost = f"the log no longer holds the records that come next ({error}): check its retention"
                self._fail(self._topic_watch.explain() or lost)
            except InvalidSessionTimeoutError:
                limits = "the broker's group.min.session.timeout.ms and group.max.session.timeout.ms"
                self._fail(f"kafka.session_timeout_ms must lie within {limits}, got {self._config.session_timeout_ms}")
            except KafkaError as error:
                if not error.retriable:
                    self._fail(f"reading from {self._config.bootstrap} failed: {error}")
                log.debug("a fetch failed and will be repeated: %s", error)
                self._closing.wait(_LOOK_S)
            except SourceError as error:
                self._fail(str(error))
            except (OSError, MemoryError) as error:
                self._fail(f"reading from {self._config.bootstrap} failed: {told(error)}")
            except Exception as error:
                log.exception("the polling thread failed")
                self._fail(f"reading from {self._config.bootstrap} failed: {error!r}")
            # Not only after a poll that went well: a broker that is away makes polls fail, and that is to be said.
            self._watch.check()
            if self._topic_watch.failure is not None:
                self._fail(self._topic_watch.failure)

    def _turn(self) -> None:
        """One poll of Kafka, and what comes before and after it."""
        # Step 1. Partitions that the group has dealt out since.
        if self._arrived is not None:
            self._look_up()
        # Step 2. Go where the reader wants to start, and let flow what there is room for.
        start = self._start
        if start is not self._seeked:
            for partition, offset in (start or {}).items():
                self._consumer.seek(partition, offset)
            self._polled = dict(start or {})
            self._seeked = start
        self._let_flow(self._wanted(start))
        # Step 3. Commit, and poll: with everything paused too, because a silent member is taken for dead.
        self._committer.send()
        fetched = self._consumer.poll(timeout_ms=self._poll_ms())
        # Step 4. Queue what came, unless the reader starts elsewhere by now.
        if not fetched:
            if not self._config.share and not self._flowing:
                self._closing.wait(_PAUSE_S)
            if time.monotonic() - self._looked_s < _LOOK_S:
                return
        if start is not None and start is self._start:
            self._looked_s = time.monotonic()
            self._queue_up(start, fetched)

    def _poll_ms(self) -> int:
        if not self._config.share:
            return _POLL_MS if self._flowing else 0
        return _JOINING_POLL_MS if self._assignment is None else _POLL_MS

    def _wanted(self, start: dict[TopicPartition, int] | None) -> frozenset[TopicPartition]:
        """The partitions to fetch: none while the queue is full, the catalog's alone until it is through, then all."""
        if start is None:
            return frozenset()
        with self._ready:
            room = self._ready.wait_for(
                lambda: self._closing.is_set() or self._start is not start or not self._queue.full,
                _ROOM_S,
            )
            if not room or self._start is not start or self._assignment is None:
                return frozenset()
            ranges = self._assignment.partitions
        catalog = [p for p in start if p.topic == self._config.items_topic and p not in self._held]
        if any(self._polled[p] < ranges[p.topic, p.partition].end for p in catalog):
            return frozenset(catalog)
        return frozenset(start)

    def _let_flow(self, wanted: frozenset[TopicPartition]) -> None:
        if wanted != self._flowing:
            self._consumer.pause(*(self._flowing - wanted))
            self._consumer.resume(*(wanted - self._flowing))
            self._flowing = wanted

    def _queue_up(self, start: dict[TopicPartition, int], fetched: Mapping[TopicPartition, Sequence[Any]]) -> None:
        batch = pack_fetched(self._consumer, self._polled, fetched)
        held = dict(self._consumer.held())
        self._polled.update(batch.positions)
        with self._ready:
            if self._start is not start:
                return
            self._held = held
            for known in (batch.ends, batch.positions):
                for partition, end in known.items():
                    self._ends[partition] = max(self._ends[partition], end)
            if batch.positions:
                self._queue.append(batch)
                self._ready.notify_all()

    def _fail(self, reason: str) -> None:
        with self._ready:
            self._failure = SourceError(reason)
            self._closing.set()
            self._ready.notify_all()

    def _committing_consumer(self) -> KafkaConsumer:
        """With a share, the member itself; else one of its own, so that reading never waits for a group."""
        if self._config.share:
            return self._consumer
        if not self._watch.connected:
            raise KafkaConnectionError("no broker answers")
        settings = connection_settings(self._config)
        settings |= {"group_id": self._config.group_id, "bootstrap_timeout_ms": _COMMIT_BOOTSTRAP_MS}
        return open_client(KafkaConsumer, settings | {"enable_auto_commit": False})
