"""Bounds the memory that one answer of a broker takes, whatever size the broker gives it.

Apache Kafka keeps to the size that a fetch asks for. The embedded broker answers with all that its log holds, and
kafka-python holds an answer as a whole, several times over. Here such an answer is shortened as it arrives, and the
records that are left out are dropped: the client asks for them again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from engine.events.fetch_answer import VERSIONS, ShortenedAnswer

_HEAD = struct.Struct(">ii")  # the length of what follows it, and the number of the request
_LENGTH = struct.Struct(">i")
_Piece = bytes | memoryview


class AnswerLimit:
    """Passes on the bytes of one connection, and shortens answers to fetches that are too long.

    Args:
        max_bytes: of the records in an answer, beside its first batch; see `ShortenedAnswer`.
        version_of: the version of the fetch with a request's number; None where that request was no fetch.
        shortened: called with the size of an answer and how much of it was kept; the size is negative where the
            broker's length is, because it has more to say than the protocol allows.
    """

    def __init__(
        self, max_bytes: int, version_of: Callable[[int], int | None], shortened: Callable[[int, int], None]
    ) -> None:
        self._max_bytes = max_bytes
        self._version_of = version_of
        self._report = shortened
        self._head = bytearray()  # of the answer that comes next, as far as it has arrived
        self._size = 0  # of the present answer
        self._left = 0  # its bytes that have not arrived yet
        self._long: ShortenedAnswer | None = None  # the present answer, where it is longer than the limit

    def feed(self, data: bytes) -> bytes:
        """Takes what arrived, and returns what the client is to see.

        Raises:
            MalformedAnswer: a long answer can't be read.
        """
        view, at = memoryview(data), 0
        passed: list[_Piece] = []
        while at < len(view):
            if self._left:
                step = min(self._left, len(view) - at)
                self._left -= step
                part = view[at : at + step]
                if self._long is None:
                    passed.append(part)
                else:
                    self._long.feed(part)
                    passed += self._ended(self._long)
            else:
                step = min(_HEAD.size - len(self._head), len(view) - at)
                self._head += view[at : at + step]
                if len(self._head) == _HEAD.size:
                    passed += self._begin(bytes(self._head))
                    self._head.clear()
            at += step
        return b"".join(passed)

    def _begin(self, head: bytes) -> list[_Piece]:
        """Decides on the answer whose head has arrived."""
        size, number = _HEAD.unpack(head)
        if size < 0:
            self._report(size, 0)
        self._size = size
        self._left = max(0, size - (_HEAD.size - _LENGTH.size))
        version = self._version_of(number) if size > self._max_bytes else None
        if version is None or version not in VERSIONS:
            return [head]
        self._long = ShortenedAnswer(version, size, self._max_bytes)
        self._long.feed(memoryview(head)[_LENGTH.size :])
        return []

    def _ended(self, long: ShortenedAnswer) -> list[_Piece]:
        """What is passed on of a long answer: all that is kept, once it is whole."""
        if self._left:
            return []
        self._long = None
        pieces = long.pieces()
        kept = sum(map(len, pieces))
        if kept < self._size:
            self._report(self._size, kept)
        return [_LENGTH.pack(kept), *pieces]
