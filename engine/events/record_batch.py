"""Kafka's record batch, format 2, read in bounded steps: its header, its checksum and its records.

kafka-python unpacks a batch as a whole and raises at the first fault in it. Here a batch is unpacked piece by piece, a
record that is too large is passed over, and a fault ends the batch alone.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kafka.record.util import calc_crc32c

from engine.events.compression import NONE, Decompressor

_HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = _HEADER.size
LENGTH_END = 12  # The length counts the bytes behind itself.
_CRC_END = 21  # The checksum covers everything behind itself.
_PREFIX_BYTES = 64 * 1024  # The fields before a record's value are looked for in so many bytes.
_MAX_VARINT_BYTES = 10
_SKIPPED_BYTES = 16 << 20  # After so many bytes that were passed over, the reader gets a turn.
_INT64 = range(-(1 << 63), 1 << 63)
_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_ABORT = struct.pack(">hh", 0, 0)  # the key of a control record: its version, and 0 for an abort


class BatchDamaged(ValueError):
    """The content of a batch is not what a producer may write; the message says what is wrong."""


# A header of W3C Trace Context whose last bit says that the trace is recorded.
_TRACED = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf]")


class RawRecord(NamedTuple):
    """A record of a batch.

    Attributes:
        too_large_bytes: 0, or the length of a record that is longer than may be read and so has no value.
        traceparent: names the span that the record was written in, where that is wanted and recorded.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    too_large_bytes: int = 0
    traceparent: str | None = None


class BatchHeader(NamedTuple):
    """The fields before the records, as the log has them."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def control(self) -> bool:
        return bool(self.attributes & _CONTROL)


def read_header(batch: memoryview) -> BatchHeader:
    """The header of a batch of format 2, of at least `HEADER_BYTES`."""
    return BatchHeader._make(_HEADER.unpack_from(batch))


def checksum_holds(batch: memoryview, header: BatchHeader) -> bool:
    return bool(calc_crc32c(batch[_CRC_END:]) == header.crc)


def aborts(batch: memoryview, header: BatchHeader) -> bool:
    """Whether a control batch ends a transaction whose records don't count."""
    for record in read_records(batch, header, max_record_bytes=1024):
        return record is not None and record.key is not None and record.key[:4] == _ABORT
    return False


def read_records(
    batch: memoryview, header: BatchHeader, *, max_record_bytes: int, traced: bool = False
) -> Iterator[RawRecord | None]:
    """The records of a whole batch, one by one; None where much was passed over since the last of them.

    Args:
        traced: whether the traceparent among the headers of each is wanted.

    Raises:
        BatchDamaged: the records that were not returned yet can't be read.
        engine.events.compression.CodecMissing: the codec is not installed; nothing was returned.
        engine.events.compression.Undecodable: as `BatchDamaged`.
    """
    codec = header.attributes & _CODEC
    body = batch[HEADER_BYTES:]
    window = _Window(bytes(body), None) if codec == NONE else _Window(b"", Decompressor(codec, body))
    append_time_ms = header.max_timestamp_ms if header.attributes & _APPEND_TIME else None
    if header.records < 0:
        raise BatchDamaged(f"it counts {header.records} records")
    last_offset = header.base_offset - 1
    for index in range(header.records):
        try:
            length = window.varint()
            if length <= max_record_bytes:
                window.need(max(length, 0))
            else:
                window.need(_PREFIX_BYTES)
            end = window.at + length
            too_large = length > max_record_bytes
            record = _record(window, end, header, append_time_ms, too_large=too_large, traced=traced)
        except IndexError:
            raise BatchDamaged(f"it ends within record {index + 1} of {header.records}") from None
        if not last_offset < record.offset <= header.last_offset:
            raise BatchDamaged(f"record {index + 1} of {header.records} has the offset {record.offset}")
        last_offset = record.offset
        if length <= max_record_bytes:
            window.at = end
        else:
            left = end - window.at
            while left > 0:
                skipped = window.skip(min(left, _SKIPPED_BYTES))
                if not skipped:
                    raise BatchDamaged(f"it ends within record {index + 1} of {header.records}")
                left -= skipped
                if left:
                    yield None
        yield record


def _record(
    window: _Window, end: int, header: BatchHeader, append_time_ms: int | None, *, too_large: bool, traced: bool
) -> RawRecord:
    """Reads up to the value's end, or up to its beginning where the record is too large."""
    data, at = window.data, window.at
    length = end - at
    at += 1  # The attributes of a record have no meaning yet.
    delta_ms, at = _varint(data, at)
    offset_delta, at = _varint(data, at)
    key_size, at = _varint(data, at)
    key = None
    if key_size >= 0:
        key_end = at + key_size
        if not too_large or key_end <= len(data):
            key = data[at:key_end]
        at = key_end
    value = None
    if not too_large:
        value_size, at = _varint(data, at)
        if value_size >= 0:
            value = data[at : at + value_size]
            at += value_size
        if at > end or end > len(data):
            raise BatchDamaged(f"a record of {length} bytes holds a longer key or value")
    traceparent = _traceparent(data, at, end) if traced and not too_large else None
    timestamp_ms = header.first_timestamp_ms + delta_ms if append_time_ms is None else append_time_ms
    if timestamp_ms not in _INT64:
        timestamp_ms = -1
    too_large_bytes = length if too_large else 0
    return RawRecord(header.base_offset + offset_delta, timestamp_ms, key, value, too_large_bytes, traceparent)


def _traceparent(data: bytes, at: int, end: int) -> str | None:
    """The header of that name of a record that is traced; headers that make no sense are nobody's."""
    try:
        count, at = _varint(data, at)
        for _ in range(count):
            size, at = _varint(data, at)
            name = data[at : at + size]
            at += max(size, 0)
            size, at = _varint(data, at)
            value = data[at : at + size] if size >= 0 else b""
            at += max(size, 0)
            if at > end:
                return None
            if name == b"traceparent" and _TRACED.fullmatch(value):
                return value.decode()
    except (IndexError, BatchDamaged):
        pass
    return None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A signed number of varying length at a position, and the position behind it."""
    byte = data[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    number, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at + 1
        shift += 7
        if shift >= 7 * _MAX_VARINT_BYTES:
            raise BatchDamaged("a number is longer than 64 bits")


class _Window:
    """The bytes of a batch that are unpacked now.

    Attributes:
        data: bytes that may be read.
        at: the position of the next one.
    """

    def __init__(self, data: bytes, source: Decompressor | None) -> None:
        self.data = data
        self.at = 0
        self._source = source

    def varint(self) -> int:
        """Reads a number."""
        if len(self.data) - self.at < _MAX_VARINT_BYTES:
            self.need(_MAX_VARINT_BYTES)
        number, self.at = _varint(self.data, self.at)
        return number

    def need(self, size: int) -> None:
        """Unpacks until so many bytes can be read, or all that there are."""
        missing = size - (len(self.data) - self.at)
        if missing > 0 and self._source is not None:
            more = self._source.read(missing)
            self.data = self.data[self.at :] + more
            self.at = 0

    def skip(self, size: int) -> int:
        """Passes over so many bytes, or fewer; returns how many, 0 at the end."""
        if self.at >= len(self.data):
            self.need(1)
        skipped = min(size, len(self.data) - self.at)
        self.at += skipped
        return skipped
