"""A broker's answer to a fetch, versions 4 to 12, shortened while it arrives.

The order of the fields is that of `FetchResponse` in Kafka's own descriptions of its messages.
"""

from __future__ import annotations

import struct
from collections.abc import Generator

VERSIONS = range(4, 13)  # kafka-python 3.0 asks by none that is newer.
_LOG_START_SINCE, _SESSION_SINCE, _REPLICA_SINCE, _COMPACT_SINCE = 5, 7, 11, 12
_BATCH_LENGTH_AT, _BATCH_LENGTH_END = 8, 12  # A batch begins with its offset, and the length of what follows.
_MAX_VARINT_BYTES = 5
_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")

# A walk asks for so many bytes, or has so many dropped where the number is negative.
_Walk = Generator[int, bytes, None]
_Read = Generator[int, bytes, tuple[int, bytes]]


class MalformedAnswer(ValueError):
    """The bytes are no answer to a fetch."""


class ShortenedAnswer:
    """Keeps every field of an answer, and of the records as much as has room.

    A client wants to hear of each partition that it has asked for, so none is left out. A partition whose records have
    no room ends behind the last bytes that have, as brokers end one that has its size, provided that its first batch is
    whole; otherwise it has no records, and the client asks for them again. The first batch of the answer is kept
    whatever its size, since a client can't read on without it; an answer that is long only because of it is kept whole.

    Args:
        version: of the fetch.
        size: the bytes of the answer.
        max_bytes: of the records that are kept, beside the first batch.
    """

    def __init__(self, version: int, size: int, max_bytes: int) -> None:
        self._version = version
        self._size = size
        self._max_bytes = max_bytes
        self._room: int | None = None  # for records; not known before the first batch
        self._kept: list[bytes] = []
        self._walk = self._answer()
        self._pending = bytearray()  # of what the walk asked for
        self._wanted = next(self._walk)
        self._ended = False

    def feed(self, data: memoryview) -> None:
        """Takes the next bytes of the answer.

        Raises:
            MalformedAnswer: they can't be.
        """
        while len(data):
            if self._ended:
                raise MalformedAnswer(f"{len(data)} bytes follow its end")
            if self._wanted < 0:
                step = min(-self._wanted, len(data))
                self._wanted += step
                done = self._wanted == 0
            else:
                step = min(self._wanted - len(self._pending), len(data))
                self._pending += data[:step]
                done = len(self._pending) == self._wanted
            data = data[step:]
            if done:
                self._go_on()

    def pieces(self) -> list[bytes]:
        """What is kept, in order, once all bytes were fed."""
        return self._kept

    def _go_on(self) -> None:
        """Gives the walk what it wanted, until it wants more."""
        wanted, self._wanted = bytes(self._pending), 0
        self._pending.clear()
        try:
            while self._wanted == 0:
                self._wanted = self._walk.send(wanted)
                wanted = b""
        except StopIteration:
            self._ended = True

    def _answer(self) -> _Walk:
        yield from self._keep(4)  # the number of the request
        yield from self._tags()
        yield from self._keep(4 + (6 if self._version >= _SESSION_SINCE else 0))
        topics = yield from self._count()
        for _ in range(topics):
            yield from self._topic_name()
            partitions = yield from self._count()
            for _ in range(partitions):
                yield from self._partition()
                yield from self._tags()
            yield from self._tags()
        yield from self._tags()

    def _topic_name(self) -> _Walk:
        if self._version >= _COMPACT_SINCE:
            length = yield from self._count()
        else:
            (length,) = _INT16.unpack((yield from self._keep(2)))
        yield from self._keep(max(0, length))

    def _partition(self) -> _Walk:
        yield from self._keep(4 + 2 + 8 + 8 + (8 if self._version >= _LOG_START_SINCE else 0))
        aborted = yield from self._count()
        for _ in range(aborted):
            yield from self._keep(16)
            yield from self._tags()
        if self._version >= _REPLICA_SINCE:
            yield from self._keep(4)
        yield from self._records()

    def _records(self) -> _Walk:
        size, coded = yield from self._read_count()
        if size == 0:
            self._kept.append(coded)
            return
        head = yield min(size, _BATCH_LENGTH_END)
        first = size
        if len(head) == _BATCH_LENGTH_END:
            first = min(size, _BATCH_LENGTH_END + max(0, *_INT32.unpack_from(head, _BATCH_LENGTH_AT)))
        if self._room is None:
            short = self._size - first <= self._max_bytes
            self._room = self._size if short else max(self._max_bytes, first)
        if size <= self._room:
            kept = size
            self._room -= size
        else:
            kept = self._room if first <= self._room else 0
            self._room = 0
        self._kept.append(coded if kept == size else self._coded(kept))
        if kept:
            self._kept.append(head[:kept])
            yield from self._keep(max(0, kept - len(head)))
        yield max(kept, len(head)) - size

    def _tags(self) -> _Walk:
        if self._version >= _COMPACT_SINCE:
            tags, coded = yield from self._read_varint()
            self._kept.append(coded)
            for _ in range(tags):
                for _ in range(2):  # the tag, and the length of its field
                    length, coded = yield from self._read_varint()
                    self._kept.append(coded)
                yield from self._keep(length)

    def _count(self) -> Generator[int, bytes, int]:
        """The length of an array or of a text; 0 where there is none."""
        count, coded = yield from self._read_count()
        self._kept.append(coded)
        return count

    def _read_count(self) -> _Read:
        """The same with its bytes, which are not kept."""
        if self._version >= _COMPACT_SINCE:
            number, coded = yield from self._read_varint()
            return max(0, number - 1), coded
        coded = yield 4
        return max(0, *_INT32.unpack(coded)), coded

    def _read_varint(self) -> _Read:
        number, coded = 0, b""
        while len(coded) < _MAX_VARINT_BYTES:
            byte = yield 1
            number |= (byte[0] & 0x7F) << 7 * len(coded)
            coded += byte
            if byte[0] < 0x80:
                return number, coded
        raise MalformedAnswer("a number does not end")

    def _keep(self, size: int) -> Generator[int, bytes, bytes]:
        piece = yield size
        self._kept.append(piece)
        return piece

    def _coded(self, count: int) -> bytes:
        if self._version < _COMPACT_SINCE:
            return _INT32.pack(count)
        number, coded = count + 1, bytearray()
        while number >= 0x80:
            coded.append(number & 0x7F | 0x80)
            number >>= 7
        coded.append(number)
        return bytes(coded)
