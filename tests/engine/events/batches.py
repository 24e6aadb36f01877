"""Record batches as producers write them, and as brokers end transactions."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kafka.record.memory_records import MemoryRecordsBuilder

from deploy.local.raw_batches import CRC_END, signed

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HEADER_BYTES = 61
_TIME_MS = 1_700_000_000_000
KeyValue = tuple[bytes | None, bytes | None]


def batch_of(
    pairs: Sequence[KeyValue],
    codec: str = "none",
    *,
    base_offset: int = 0,
    magic: int = 2,
    producer_id: int = -1,
    transactional: bool = False,
) -> bytearray:
    """A batch of these keys and values."""
    extra = {"producer_id": producer_id, "producer_epoch": 0, "base_sequence": 0} if producer_id >= 0 else {}
    builder = MemoryRecordsBuilder(magic, CODECS[codec], 1 << 30, transactional=transactional, **extra)
    for key, value in pairs:
        builder.append(_TIME_MS, key, value)
    builder.close()
    batch = bytearray(builder.buffer())
    if magic == 2:
        struct.pack_into(">q", batch, 0, base_offset)
    return batch


def marker(base_offset: int, producer_id: int, *, commit: bool) -> bytearray:
    """The control batch that ends a transaction."""
    batch = batch_of([(struct.pack(">hh", 0, int(commit)), b"\0" * 6)], base_offset=base_offset)
    struct.pack_into(">h", batch, CRC_END, 0x30)  # control, transactional
    struct.pack_into(">q", batch, 43, producer_id)
    return signed(batch)
