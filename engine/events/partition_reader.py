"""Reads one partition's part of a fetch, batch by batch, in place of the class that kafka-python has for this.

No fault of a batch raises here. A batch whose checksum is wrong is fetched again twice, since it may have been damaged
on its way. Where it is damaged in the log, its place is taken by one `FetchedRecord` with a `Flaw`, and reading goes on
behind it. Where nothing tells where the next batch begins, or a codec is not installed, the partition is held.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka import TopicPartition

from engine.events.batch import Flaw
from engine.events.compression import CodecMissing, Undecodable
from engine.events.legacy_batch import read_legacy_records
from engine.events.record_batch import (
    HEADER_BYTES,
    LENGTH_END,
    BatchDamaged,
    BatchHeader,
    RawRecord,
    aborts,
    checksum_holds,
    read_header,
    read_records,
)

_OFFSET_AND_LENGTH = struct.Struct(">qi")
_MAGIC_AT = 16
_REFETCHES = 2
_LEGACY_BYTES = 26  # the shortest message of the formats before Kafka 0.11


MAX_TRACED = 256  # records in one poll whose traces go on; more say nothing new of a batch

Traced = tuple[str, int, int]  # topic, partition and offset of a record that is traced


class FetchedRecord(NamedTuple):
    """A record as it was fetched; with a `flaw`, the place of records that can't be read, from `offset` on."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    flaw: Flaw | None = None


@dataclass(frozen=True)
class PartitionAnswer:
    """A broker's answer to a fetch of one partition.

    Attributes:
        fetch_offset: the position from which it was asked to answer.
        data: record batches, the last of which may be cut off.
        aborted: the transactions that were given up, as the broker lists them with the answer.
        high_watermark: one past the last offset of the log.
    """

    fetch_offset: int
    data: bytes
    aborted: Sequence[Any]
    high_watermark: int


@dataclass
class ReadLimits:
    """The bounds of a poll.

    Attributes:
        max_record_bytes: a longer record is passed over.
        room_bytes: keys and values that this poll may still return; it may exceed that by one record.
        traced: takes the traceparent of each record that has one, by topic, partition and offset; none: nobody asks.
    """

    max_record_bytes: int
    room_bytes: int = 0
    traced: dict[Traced, str] | None = None

    def note(self, partition: TopicPartition, offset: int, traceparent: str) -> None:
        """Keeps a traceparent, unless there are many."""
        if self.traced is not None and len(self.traced) < MAX_TRACED:
            self.traced[partition.topic, partition.partition, offset] = traceparent


class Refetches:
    """Counts how often the batch at a partition's position was fetched again."""

    def __init__(self) -> None:
        self._tries: dict[TopicPartition, tuple[int, int]] = {}

    def another(self, partition: TopicPartition, offset: int) -> bool:
        """Whether to fetch once more from this offset; counts that."""
        before, tries = self._tries.get(partition, (offset, 0))
        tries = tries if before == offset else 0
        self._tries[partition] = offset, tries + 1
        return tries < _REFETCHES


_Batch = Generator[FetchedRecord | None, None, bool]


class PartitionReader:
    """The records of one partition in one answer to a fetch.

    Args:
        answer: what this reads; a reader stands for one answer only.
        limits: shared by all partitions of a poll.
        refetches: shared by all readers of a consumer.
        hold: called with an offset and the reason where the partition can't be read further now.
        on_drain: called once all is returned.

    Attributes:
        next_fetch_offset: the position behind what was returned.
        leader_epoch: of the newest batch.
    """

    def __init__(
        self,
        partition: TopicPartition,
        answer: PartitionAnswer,
        *,
        limits: ReadLimits,
        refetches: Refetches,
        hold: Callable[[TopicPartition, int, str], None],
        on_drain: Callable[[PartitionReader], None],
    ) -> None:
        self.topic_partition = partition
        self.next_fetch_offset = answer.fetch_offset
        self.leader_epoch = -1
        self.bytes_read = len(answer.data)
        self._fetch_offset = answer.fetch_offset
        self._data = memoryview(answer.data)
        self._high_watermark = answer.high_watermark
        self._limits = limits
        self._refetches = refetches
        self._hold = hold
        self._on_drain = on_drain
        self._aborted = sorted(answer.aborted, key=lambda one: one.first_offset, reverse=True)
        self._aborted_producers: set[int] = set()
        self._records: Iterator[FetchedRecord | None] | None = self._read()

    def __bool__(self) -> bool:
        return self._records is not None

    def drain(self) -> None:
        if self._records is not None:
            self._records = None
            self._data = memoryview(b"")
            self._on_drain(self)

    def take(self, max_records: int) -> list[FetchedRecord]:
        """The next records: fewer where the poll has no room for more, none where much was passed over."""
        taken: list[FetchedRecord] = []
        if self._records is None:
            return taken
        limits = self._limits
        for record in self._records:
            if record is None:
                break
            taken.append(record)
            limits.room_bytes -= len(record.key or b"") + len(record.value or b"")
            if len(taken) >= max_records or limits.room_bytes <= 0:
                break
        else:
            self.drain()
        return taken

    def _read(self) -> Iterator[FetchedRecord | None]:
        """The records; None to give others a turn. Moves `next_fetch_offset` before each."""
        data, at = self._data, 0
        while len(data) - at > _MAGIC_AT:
            base_offset, length = _OFFSET_AND_LENGTH.unpack_from(data, at)
            magic = data[at + _MAGIC_AT]
            end = at + LENGTH_END + length
            if length < _shortest(magic) - LENGTH_END or (end > len(data) and at == 0):
                self._fetch_again(f"a batch of format {magic} and {length} bytes can't be one")
                return
            if end > len(data):
                return  # The broker cuts the last batch off where the answer has its size.
            batch = data[at:end]
            if magic > 1:
                go_on = yield from self._read_batch(batch, end)
            else:
                go_on = yield from self._guarded(read_legacy_records(batch, magic), base_offset, base_offset, 1)
            if not go_on:
                return
            at = end
        if at == 0 and len(data):
            self._fetch_again(f"{len(data)} bytes can't be a batch")

    def _read_batch(self, batch: memoryview, end: int) -> _Batch:
        """The records of a batch of format 2. Returns whether what follows it can be read from the same answer."""
        header = read_header(batch)
        if not checksum_holds(batch, header):
            next_base = self._next_base(header, end)
            if next_base is not None and next_base <= self.next_fetch_offset:
                return True  # It was passed over before; the broker finds its way by the same damaged header.
            if self._refetches.another(self.topic_partition, self.next_fetch_offset):
                return False
            last_offset = self._last_offset_if_damaged(header, next_base)
            if last_offset is None:
                self._hold_here("the checksum of its next batch is wrong, and where that ends is damaged too")
                return False
            count = last_offset + 1 - max(header.base_offset, self.next_fetch_offset)
            yield from self._flawed(last_offset, count, "a batch with a wrong checksum")
            # Whether it ended a transaction is lost: the broker lists the transactions anew for what follows.
            return False
        self.leader_epoch = header.leader_epoch
        if self._skipped(batch, header):
            self._move_behind(header.last_offset)
            return True
        limits = self._limits
        traced = limits.traced is not None
        records = read_records(batch, header, max_record_bytes=limits.max_record_bytes, traced=traced)
        go_on = yield from self._guarded(records, header.base_offset, header.last_offset, header.records)
        return go_on

    def _guarded(self, records: Iterator[RawRecord | None], base_offset: int, last_offset: int, count: int) -> _Batch:
        """A batch's records, and one with a flaw in place of those that can't be read. Returns whether to go on."""
        topic, partition = self.topic_partition
        read = 0
        try:
            for record in records:
                if record is None:
                    yield None
                    continue
                read += 1
                offset, timestamp_ms, key, value, too_large_bytes, traceparent = record
                if offset < self._fetch_offset:
                    continue
                self.next_fetch_offset = offset + 1
                if traceparent is not None:
                    self._limits.note(self.topic_partition, offset, traceparent)
                flaw = None
                if too_large_bytes:
                    most = self._limits.max_record_bytes
                    flaw = Flaw(offset, 1, f"a record of {too_large_bytes} bytes, kafka.max_record_bytes allows {most}")
                yield FetchedRecord(topic, partition, offset, timestamp_ms, key, value, flaw)
        except CodecMissing as missing:
            self._hold_here(str(missing))
            return False
        except (BatchDamaged, Undecodable) as error:
            yield from self._flawed(last_offset, count - read, f"a damaged batch: {error}")
        self._move_behind(last_offset)
        return True

    def _skipped(self, batch: memoryview, header: BatchHeader) -> bool:
        """Whether a producer's batch is no news: a transaction's marker, or part of a transaction that was given up."""
        while self._aborted and self._aborted[-1].first_offset <= header.last_offset:
            self._aborted_producers.add(self._aborted.pop().producer_id)
        if header.control:
            if aborts(batch, header):
                self._aborted_producers.discard(header.producer_id)
            return True
        return header.transactional and header.producer_id in self._aborted_producers

    def _flawed(self, last_offset: int, count: int, what: str) -> Iterator[FetchedRecord]:
        """One record that says which offsets can't be read, unless they were all returned before."""
        topic, partition = self.topic_partition
        first = self.next_fetch_offset
        if first > last_offset:
            return
        self._move_behind(last_offset)
        where = f"offset {first}" if first == last_offset else f"offsets {first} to {last_offset}"
        flaw = Flaw(last_offset, max(1, count), f"{where} can't be read: {what}")
        yield FetchedRecord(topic, partition, first, -1, None, None, flaw)

    def _move_behind(self, offset: int) -> None:
        self.next_fetch_offset = max(self.next_fetch_offset, offset + 1)

    def _next_base(self, header: BatchHeader, end: int) -> int | None:
        """The first offset of the batch behind a damaged one; None where the answer doesn't show it."""
        if len(self._data) - end <= _MAGIC_AT:
            return None
        next_base: int = _OFFSET_AND_LENGTH.unpack_from(self._data, end)[0]
        return next_base if header.base_offset < next_base < self._high_watermark else None

    def _last_offset_if_damaged(self, header: BatchHeader, next_base: int | None) -> int | None:
        """The last offset of a batch whose checksum is wrong; None where its header must be damaged there."""
        last_offset = header.last_offset
        if next_base is not None and not header.base_offset <= last_offset < next_base:
            last_offset = next_base - 1
        return last_offset if self.next_fetch_offset <= last_offset < self._high_watermark else None

    def _fetch_again(self, problem: str) -> None:
        """Bytes that are no batch are fetched again; in the end the partition is held: nothing says where they end."""
        if not self._refetches.another(self.topic_partition, self.next_fetch_offset):
            self._hold_here(f"the broker's answer is damaged: {problem}")

    def _hold_here(self, reason: str) -> None:
        self._hold(self.topic_partition, self.next_fetch_offset, reason)


def _shortest(magic: int) -> int:
    return HEADER_BYTES if magic > 1 else _LEGACY_BYTES
