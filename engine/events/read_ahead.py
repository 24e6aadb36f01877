"""Records that are read ahead of the fold: packed as they are fetched, and queued within a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kafka import TopicPartition

from engine.events.log_consumer import LogConsumer
from engine.events.records import Records


class Fetched(NamedTuple):
    """The records and positions that one poll of Kafka brought.

    Attributes:
        records: those that it returned.
        positions: the next offset of each partition after these records, for the partitions that moved.
        ends: the last stable offset of each partition that the broker has told it of, whether it moved or is held.
    """

    records: Records
    positions: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]


def pack_fetched(
    consumer: LogConsumer, polled: Mapping[TopicPartition, int], fetched: Mapping[TopicPartition, Sequence[Any]]
) -> Fetched:
    """Packs the records of a poll.

    Args:
        polled: the position of each partition before the poll.
        fetched: what `LogConsumer.poll` returned.
    """
    # Positions, not the last record, say how far we are: compaction and transactions leave offsets without one.
    positions: dict[TopicPartition, int] = {}
    for partition, before in polled.items():
        position = consumer.position(partition, timeout_ms=0)
        if position is not None and position != before:
            positions[partition] = position
    told = {partition: consumer.last_stable_offset(partition) for partition in polled}
    ends = {partition: end for partition, end in told.items() if end is not None}
    return Fetched(Records.fetched(fetched.values(), consumer.take_traced()), positions, ends)


class ReadAhead:
    """Fetched batches in the order in which they came; its owner guards it by a lock of its own.

    Args:
        max_records: the queue is full once it holds as many.
        max_bytes: or once keys and values take so many bytes.
    """

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._batches: deque[Fetched] = deque()
        self._records = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Batches that wait, those without any record included."""
        return len(self._batches)

    @property
    def full(self) -> bool:
        return self._records >= self._max_records or self._bytes >= self._max_bytes

    def append(self, batch: Fetched) -> None:
        self._batches.append(batch)
        self._records += len(batch.records)
        self._bytes += batch.records.size_bytes

    def take(self, max_records: int, max_bytes: int) -> list[Fetched]:
        """Removes and returns the oldest batch, and those behind it as far as all together stay within the bounds."""
        taken: list[Fetched] = []
        records = size = 0
        while self._batches:
            batch = self._batches[0].records
            records += len(batch)
            size += batch.size_bytes
            if taken and (records > max_records or size > max_bytes):
                break
            taken.append(self._batches.popleft())
            self._records -= len(batch)
            self._bytes -= batch.size_bytes
        return taken

    def clear(self) -> None:
        self._batches.clear()
        self._records = self._bytes = 0
