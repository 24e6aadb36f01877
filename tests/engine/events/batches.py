"""Record batches as producers write them, whole or forged, and a producer that sends them as they are."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HEADER_BYTES = 61
_CRC_AT, _CRC_END = 17, 21
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
    struct.pack_into(">h", batch, _CRC_END, 0x30)  # control, transactional
    struct.pack_into(">q", batch, 43, producer_id)
    return signed(batch)


def signed(batch: bytearray) -> bytearray:
    """The batch with the checksum that it should have."""
    struct.pack_into(">I", batch, _CRC_AT, calc_crc32c(memoryview(batch)[_CRC_END:]))
    return batch


def send_raw(address: str, topic: str, partition: int, batch: bytes) -> int:
    """Sends a batch as it is, and returns the broker's error code; nothing checks it on this side."""
    host, port = address.rsplit(":", 1)
    name = topic.encode()
    body = struct.pack(">hhih", 0, 3, 1, -1)  # Produce, version 3
    body += struct.pack(">hhii", -1, -1, 10_000, 1)  # no transaction, acks of all, time-out, one topic
    body += struct.pack(">h", len(name)) + name
    body += struct.pack(">iii", 1, partition, len(batch)) + batch
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        answer = b""
        while len(answer) < 4 or len(answer) < 4 + struct.unpack(">i", answer[:4])[0]:
            received = connection.recv(65536)
            if not received:
                raise ConnectionError("the broker hung up")
            answer += received
    error: int = struct.unpack_from(">h", answer, 4 + 4 + 4 + 2 + len(name) + 4 + 4)[0]
    return error
