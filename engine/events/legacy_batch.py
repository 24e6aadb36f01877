"""Messages of the formats before Kafka 0.11, as old topics may still hold them; kafka-python parses them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kafka.errors import KafkaError
from kafka.record.legacy_records import LegacyRecord, LegacyRecordBatch

from engine.events.compression import Decompressor
from engine.events.record_batch import BatchDamaged, RawRecord

_OFFSET_AND_LENGTH = struct.Struct(">qi")  # before each message; the length counts the bytes behind itself
_ATTRIBUTES_AT = 17
_CODEC = 0x07
_APPEND_TIME = 1
_MAX_UNPACKED_BYTES = 64 << 20  # A message of these formats is unpacked as a whole.


def read_legacy_records(batch: memoryview, magic: int) -> Iterator[RawRecord]:
    """The records of a message of a format before Kafka 0.11, which may be compressed and hold others.

    Raises:
        BatchDamaged: they can't be read.
        engine.events.compression.CodecMissing: the codec is not installed.
        engine.events.compression.Undecodable: as `BatchDamaged`.
    """
    try:
        outer = LegacyRecordBatch(batch, magic)
        if not outer.validate_crc():
            raise BatchDamaged("its checksum is wrong")
        plain = bytearray(batch)
        plain[_ATTRIBUTES_AT] &= ~_CODEC
        (wrapper,) = LegacyRecordBatch(plain, magic)
        records = list(_inner_records(wrapper.value, outer, magic)) if outer.compression_type else [wrapper]
    except (AssertionError, IndexError, KafkaError, struct.error) as error:
        raise BatchDamaged(f"it can't be read as a message of format {magic}: {error}") from error
    # In format 1, the messages within another count their offsets from the first of them, and the last one is known.
    shift = outer.base_offset - records[-1].offset if records and magic else 0
    for record in records:
        timestamp_ms = (wrapper if outer.timestamp_type == _APPEND_TIME else record).timestamp
        time_ms = -1 if timestamp_ms is None else timestamp_ms
        yield RawRecord(record.offset + shift, time_ms, record.key, record.value)


def _inner_records(value: bytes | None, outer: LegacyRecordBatch, magic: int) -> Iterator[LegacyRecord]:
    decompressor = Decompressor(outer.compression_type, memoryview(value or b""))
    unpacked = memoryview(decompressor.read(_MAX_UNPACKED_BYTES + 1))
    if len(unpacked) > _MAX_UNPACKED_BYTES:
        raise BatchDamaged(f"it has more than {_MAX_UNPACKED_BYTES} bytes unpacked")
    at = 0
    while at < len(unpacked):
        end = at + _OFFSET_AND_LENGTH.size + max(0, _OFFSET_AND_LENGTH.unpack_from(unpacked, at)[1])
        yield from LegacyRecordBatch(unpacked[at:end], magic)
        at = end
