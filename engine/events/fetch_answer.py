"""The layout of a broker's answer to a fetch, versions 4 to 12, as far as it takes to keep the beginning of a long one.

The order of the fields is that of `FetchResponse` in Kafka's own descriptions of its messages.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import NamedTuple

VERSIONS = range(4, 13)  # kafka-python 3.0 asks by none that is newer.
_LOG_START_SINCE, _SESSION_SINCE, _REPLICA_SINCE, _COMPACT_SINCE = 5, 7, 11, 12
_BATCH_LENGTH_AT, _BATCH_LENGTH_END = 8, 12  # A batch begins with its offset, and the length of what follows.
_Pieces = list[bytes | memoryview]
_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")


class _Partition(NamedTuple):
    """Where the parts of a partition's answer lie: its fields, the length of its records, and the records."""

    begin: int
    length_at: int
    records_at: int
    records_bytes: int


class _Reader:
    """Walks over the bytes of an answer; an IndexError or struct.error is raised where they end too early."""

    def __init__(self, data: bytes | bytearray, version: int) -> None:
        self._data = data
        self._version = version
        self.at = 0

    def header(self) -> None:
        """The fields before the topics."""
        self.skip(4)  # the correlation id
        self.tags()
        self.skip(4 + (6 if self._version >= _SESSION_SINCE else 0))

    def count(self) -> int:
        """The length of an array, a text or the records; 0 where there are none."""
        if self._version >= _COMPACT_SINCE:
            return max(0, self._varint() - 1)
        (count,) = _INT32.unpack_from(self._data, self.at)
        self.skip(4)
        return max(0, int(count))

    def topic_name(self) -> None:
        if self._version >= _COMPACT_SINCE:
            self.skip(self.count())
        else:
            (length,) = _INT16.unpack_from(self._data, self.at)
            self.skip(2 + int(length))

    def partition(self) -> _Partition:
        """The fields of a partition up to its records."""
        begin = self.at
        self.skip(4 + 2 + 8 + 8 + (8 if self._version >= _LOG_START_SINCE else 0))
        for _ in range(self.count()):  # the transactions that were given up
            self.skip(16)
            self.tags()
        if self._version >= _REPLICA_SINCE:
            self.skip(4)
        length_at = self.at
        size = self.count()
        return _Partition(begin, length_at, self.at, size)

    def tags(self) -> None:
        if self._version >= _COMPACT_SINCE:
            for _ in range(self._varint()):
                self._varint()
                self.skip(self._varint())

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self._data):
            raise IndexError

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._data[self.at]
            self.at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7


def first_batch(data: bytes | bytearray, version: int) -> tuple[int, int] | None:
    """Where the first record batch of an answer begins and ends; None where the bytes don't reach to its length."""
    reader = _Reader(data, version)
    try:
        reader.header()
        for _ in range(reader.count()):
            reader.topic_name()
            for _ in range(reader.count()):
                found = reader.partition()
                if found.records_bytes:
                    (length,) = _INT32.unpack_from(data, found.records_at + _BATCH_LENGTH_AT)
                    return found.records_at, found.records_at + _BATCH_LENGTH_END + max(0, int(length))
                reader.tags()
            reader.tags()
    except (IndexError, struct.error):
        pass
    return None


def beginning_of(data: bytes | bytearray, version: int) -> bytes:
    """An answer of its own, made of the beginning of a longer one.

    A partition whose records are not all there ends behind the last bytes of them, as brokers end one that has its
    size, provided that its first batch is whole. Other partitions are left out: a client asks for them again.
    """
    view = memoryview(data)
    reader = _Reader(data, version)
    reader.header()
    header_end = reader.at
    topics: list[_Pieces] = []
    try:
        for _ in range(reader.count()):
            begin = reader.at
            reader.topic_name()
            name = view[begin : reader.at]
            partitions: list[_Pieces] = []
            try:
                for _ in range(reader.count()):
                    partitions.append(_partition(view, reader, version))
                reader.tags()
            finally:
                if partitions:
                    topics.append([name, _count(len(partitions), version), *chain(*partitions), _tags(version)])
    except (IndexError, struct.error):
        pass
    # Joined once: the records are most of the memory that this takes.
    return b"".join([view[:header_end], _count(len(topics), version), *chain(*topics), _tags(version)])


def _partition(view: memoryview, reader: _Reader, version: int) -> _Pieces:
    """The partition at the reader's place, with as many of its records as there are.

    Raises:
        IndexError, struct.error: not even its first batch is whole.
    """
    found = reader.partition()
    there = len(view) - found.records_at
    if found.records_bytes <= there:
        reader.skip(found.records_bytes)
        reader.tags()
        return [view[found.begin : reader.at]]
    (length,) = _INT32.unpack_from(view, found.records_at + _BATCH_LENGTH_AT)
    if _BATCH_LENGTH_END + int(length) > there:
        raise IndexError
    reader.at = len(view)  # Nothing behind it can be read.
    return [view[found.begin : found.length_at], _count(there, version), view[found.records_at :], _tags(version)]


def _count(number: int, version: int) -> bytes:
    if version < _COMPACT_SINCE:
        return _INT32.pack(number)
    number += 1
    coded = bytearray()
    while number >= 0x80:
        coded.append(number & 0x7F | 0x80)
        number >>= 7
    coded.append(number)
    return bytes(coded)


def _tags(version: int) -> bytes:
    return b"\0" if version >= _COMPACT_SINCE else b""
