"""kafka-python's consumer with a reader of its own for what is fetched, so that no content of the log ends it.

kafka-python raises where a batch is damaged or its codec is not installed, and raises the same again at every poll. It
also unpacks each batch as a whole, and counts records where bytes are what fills the memory. This module replaces its
fetcher's view of one partition (`PartitionReader`) and the choice of partitions to fetch (`FetchTurns`), carries a join
of the group through, spares a broker that never holds a fetch, and leaves the network and the positions to it. All this
relies on private names of kafka-python 3.0: where they change, `tests/engine/events/test_log_consumer.py` and
`tests/integration/test_group.py` fail.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, UnknownError, UnsupportedCompressionTypeError, for_code

from engine.events.fetch_turns import FetchTurns
from engine.events.held_partitions import HeldPartitions
from engine.events.partition_reader import (
    FetchedRecord,
    PartitionAnswer,
    PartitionReader,
    ReadLimits,
    Refetches,
    Traced,
)
from engine.events.source import LogIdentity

# Errors by which a broker says that it can't read or send a partition's log, whatever else it can do.
_LOG_ERRORS = (CorruptRecordError, UnknownError, UnsupportedCompressionTypeError)

_EMPTY_SHARE = 0.25  # A record waits in such a pause for at most this share of the time since the one before it.


class LogConsumer(KafkaConsumer):
    """A `KafkaConsumer` whose polls return `FetchedRecord`s.

    Args:
        max_poll_bytes: keys and values in one poll; it may exceed that by one record.
        max_record_bytes: a longer record is returned as a flaw, without its value.
        empty_fetch_ms: where nothing has come for a while, a fetch that finds nothing takes at least so long, whatever
            the broker does.
        traced: whether `take_traced` is to know of the records that are traced.
        settings: of `KafkaConsumer`.
    """

    def __init__(
        self,
        *,
        max_poll_bytes: int,
        max_record_bytes: int,
        empty_fetch_ms: float,
        traced: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._limits = ReadLimits(max_record_bytes, traced={} if traced else None)
        self._fetcher = _LogFetcher(
            self._client, self._subscription, max_poll_bytes, self._limits, empty_fetch_ms, **self.config
        )

    def poll(self, *args: Any, **kwargs: Any) -> Any:
        """See `KafkaConsumer.poll`.

        A poll often ends while the group still deals the partitions out. At the next poll kafka-python 3.0.12 asks
        whether there is a reason to join, and not whether a join is under way. Where the reason was new metadata, and
        has gone since, nobody takes the group's answer: the member has no partition and sends no heartbeat, for ever.
        """
        if self._coordinator.rejoining:
            self._coordinator.request_rejoin()
        return super().poll(*args, **kwargs)

    def take_traced(self) -> dict[Traced, str]:
        """The traceparents of the records that were returned since the last call."""
        found = self._limits.traced
        if not found:
            return {}
        self._limits.traced = {}
        return found

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        """One past the last offset whose transaction is decided, as of the last fetch; None before one."""
        return self._fetcher.last_stable_offsets.get(partition)

    def identity(self, topics: Iterable[str]) -> LogIdentity:
        """The cluster and these topics, as the newest metadata has them."""
        cluster = self._client.cluster
        ids = {topic: cluster.topic_id(topic) for topic in topics}
        known = {topic: str(topic_id) for topic, topic_id in ids.items() if topic_id is not None}
        return LogIdentity(cluster.cluster_id, known)

    def first_record_ms(self, topic: str) -> int | None:
        """The time of the first record of a topic's first partition; None where that is gone, or none has come."""
        partition = TopicPartition(topic, 0)
        found = self.offsets_for_times({partition: 0}).get(partition)
        return int(found.timestamp) if found is not None and found.offset == 0 else None

    def held(self) -> Mapping[TopicPartition, str]:
        """The partitions that can't be read further for now, and why."""
        return self._fetcher.holds.reasons()


class _LogFetcher(Fetcher):
    """kafka-python's fetcher, with `PartitionReader` in place of its `PartitionRecords`."""

    def __init__(
        self,
        client: Any,
        subscriptions: Any,
        max_poll_bytes: int,
        limits: ReadLimits,
        empty_fetch_ms: float,
        **config: Any,
    ) -> None:
        super().__init__(client, subscriptions, **config)
        self._max_poll_bytes = max_poll_bytes
        self._empty_fetch_ms = empty_fetch_ms
        self._found_s = 0.0
        self._limits = limits
        self._refetches = Refetches()
        self._answer: Any = None  # The partition's answer that is parsed now, and its batches.
        self._data = b""
        self._turns = FetchTurns()
        self.holds = HeldPartitions(self._position)
        self.last_stable_offsets: dict[TopicPartition, int] = {}

    def fetch_records(
        self, max_records: int | None = None, update_offsets: bool = True, timeout_ms: float | None = None
    ) -> tuple[dict[TopicPartition, list[FetchedRecord]], bool]:
        """See kafka-python's. A fetch that finds nothing takes a quarter of the time since the last records, up to
        `empty_fetch_ms`: a broker that never holds a fetch would else be asked a thousand times a second, by a whole
        core. One that holds fetches has taken that time already.
        """
        began_s = time.monotonic()
        found: tuple[dict[TopicPartition, list[FetchedRecord]], bool]
        found = super().fetch_records(max_records, update_offsets=update_offsets, timeout_ms=timeout_ms)
        records, is_idle = found
        now_s = time.monotonic()
        if records:
            self._found_s = now_s
        elif not is_idle:
            least_ms = self._empty_fetch_ms if timeout_ms is None else min(self._empty_fetch_ms, timeout_ms)
            least_s = min(least_ms / 1000, (now_s - self._found_s) * _EMPTY_SHARE)
            time.sleep(max(0.0, least_s - (now_s - began_s)))
        return found

    def fetched_records(
        self, max_records: int | None = None, update_offsets: bool = True
    ) -> tuple[dict[TopicPartition, list[FetchedRecord]], bool]:
        self._limits.room_bytes = self._max_poll_bytes
        found: tuple[dict[TopicPartition, list[FetchedRecord]], bool]
        found = super().fetched_records(max_records, update_offsets=update_offsets)
        return found

    def _append(self, drained: Any, part: Any, max_records: int, update_offsets: bool) -> int:
        taken: int = super()._append(drained, part, max_records, update_offsets)
        # Records that were counted off are how the caller knows that it has enough.
        full = self._limits.room_bytes <= 0 or (part and not taken)
        return max_records if full else taken

    def _parse_fetched_data(self, completed_fetch: Any) -> PartitionReader | None:
        partition, answer = completed_fetch.topic_partition, completed_fetch.partition_data
        error = for_code(answer.error_code)
        position = self._position(partition)
        if position is None or position != completed_fetch.fetched_offset:
            return None  # It was sought elsewhere since.
        if issubclass(error, _LOG_ERRORS):
            self.holds.hold(partition, position, f"the broker answers {error.message}: {error.description}")
            return None
        if answer.last_stable_offset is not None and answer.last_stable_offset >= 0:
            self.last_stable_offsets[partition] = answer.last_stable_offset
        # kafka-python sees an empty answer: it would raise where the first batch is damaged.
        self._answer, self._data, answer.records = answer, answer.records or b"", b""
        parsed: PartitionReader | None = super()._parse_fetched_data(completed_fetch)
        return parsed

    def PartitionRecords(self, fetch_offset: int, partition: TopicPartition, records: Any, **_: Any) -> PartitionReader:
        data, self._data = self._data, b""
        aborted = self._answer.aborted_transactions or ()
        return PartitionReader(
            partition,
            PartitionAnswer(fetch_offset, data, aborted, self._answer.high_watermark),
            limits=self._limits,
            refetches=self._refetches,
            hold=self.holds.hold,
            on_drain=self._on_partition_records_drain,
        )

    def _fetchable_partitions(self) -> list[TopicPartition]:
        ready = [partition for partition in super()._fetchable_partitions() if not self.holds.resting(partition)]
        return self._turns.choose(ready, len(self._subscriptions.assignment), self._client.shortened_answers)

    def _create_fetch_requests(self) -> dict[Any, Any]:
        requests: dict[Any, Any] = super()._create_fetch_requests()
        for _, offsets in requests.values():
            self._turns.ask(offsets)
        return requests

    def _position(self, partition: TopicPartition) -> int | None:
        state = self._subscriptions.assignment.get(partition)
        return None if state is None or state.position is None else state.position.offset
