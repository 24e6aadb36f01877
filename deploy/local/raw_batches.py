"""Record batches built by hand and sent as they are, such as no producer would write, or only with much memory."""

from __future__ import annotations

import socket
import struct
import time
import zlib
from collections.abc import Iterable
from typing import Any, Literal

import zstandard
from kafka.record.util import calc_crc32c, encode_varint

CRC_AT, CRC_END = 17, 21
_HEADER = struct.Struct(">qiibIhiqqqhii")
_GZIP, _ZSTD = 1, 4
_GZIP_WINDOW_BITS = 31
_TIMEOUT_S = 60.0


def signed(batch: bytearray) -> bytearray:
    """The batch with the checksum that it should have."""
    struct.pack_into(">I", batch, CRC_AT, calc_crc32c(memoryview(batch)[CRC_END:]))
    return batch


class _Plain:
    """An encoder that leaves the bytes as they are."""

    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def raw_batch(values: Iterable[bytes], codec: Literal["none", "gzip", "zstd"]) -> bytearray:
    """A batch of these values without keys, compressed as they come."""
    encoder: Any = _Plain()
    if codec != "none":
        gzip = zlib.compressobj(9, zlib.DEFLATED, _GZIP_WINDOW_BITS)
        encoder = gzip if codec == "gzip" else zstandard.ZstdCompressor().compressobj()
    body, count = bytearray(), 0
    for value in values:
        content = bytearray(2)  # attributes, and the time's difference from the batch's
        for number in (count, -1, len(value)):
            encode_varint(number, content.append)
        size = bytearray()
        encode_varint(len(content) + len(value) + 1, size.append)
        body += encoder.compress(bytes(size + content) + value + b"\0")  # and no headers
        count += 1
    body += encoder.flush()
    now_ms = int(time.time() * 1000)
    attributes = {"none": 0, "gzip": _GZIP, "zstd": _ZSTD}[codec]
    length = _HEADER.size - 12 + len(body)
    header = _HEADER.pack(0, length, -1, 2, 0, attributes, count - 1, now_ms, now_ms, -1, -1, -1, count)
    return signed(bytearray(header) + body)


def send_raw(address: str, topic: str, partition: int, batch: bytes | bytearray) -> int:
    """Sends a batch as it is, and returns the broker's error code; nothing checks it on this side."""
    host, port = address.rsplit(":", 1)
    name = topic.encode()
    body = struct.pack(">hhih", 0, 7, 1, -1)  # Produce, version 7: the first that takes zstd
    body += struct.pack(">hhii", -1, -1, int(_TIMEOUT_S * 1000), 1)  # no transaction, acks of all, time-out, one topic
    body += struct.pack(">h", len(name)) + name
    body += struct.pack(">iii", 1, partition, len(batch)) + batch
    with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        answer = b""
        while len(answer) < 4 or len(answer) < 4 + struct.unpack(">i", answer[:4])[0]:
            received = connection.recv(65536)
            if not received:
                raise ConnectionError("the broker hung up")
            answer += received
    error: int = struct.unpack_from(">h", answer, 4 + 4 + 4 + 2 + len(name) + 4 + 4)[0]
    return error
