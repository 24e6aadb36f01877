"""Bounds the memory that one answer of a broker takes, whatever size the broker gives it.

Apache Kafka keeps to the size that a fetch asks for. The embedded broker answers with all that its log holds, and
kafka-python holds an answer as a whole, several times over. Here the beginning of such an answer is made into an answer
of its own as it arrives, and the rest of its bytes is dropped: the client asks for them again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.events.fetch_answer import VERSIONS, beginning_of, first_batch

_HEAD = struct.Struct(">ii")  # the length of what follows it, and the number of the request
_LENGTH = struct.Struct(">i")
_Piece = bytes | bytearray | memoryview


@dataclass
class _Long:
    """An answer that is longer than the limit, while it arrives.

    Attributes:
        size: its bytes, without the length before them.
        version: of the fetch.
        wanted: how many of the bytes are kept.
        judged: whether its first batch has been looked at.
    """

    size: int
    version: int
    wanted: int
    kept: bytearray = field(default_factory=bytearray)
    judged: bool = False


class AnswerLimit:
    """Passes on the bytes of one connection, and shortens answers to fetches that are too long.

    An answer keeps its first batch whatever that takes, since a client can't read on without it. An answer that is long
    only because its first batch is, as Apache Kafka gives, is passed on as it is.

    Args:
        max_bytes: of an answer, beside its first batch.
        version_of: the version of the fetch with a request's number; None where that request was no fetch.
        shortened: called with the size of an answer and how much of it was kept; the size is negative where the
            broker's length is, because it has more to say than the protocol allows.
    """

    def __init__(
        self, max_bytes: int, version_of: Callable[[int], int | None], shortened: Callable[[int, int], None]
    ) -> None:
        self._max_bytes = max_bytes
        self._version_of = version_of
        self._shortened = shortened
        self._head = bytearray()  # of the answer that comes next, as far as it has arrived
        self._passing = 0  # bytes of the present answer that are still to be passed on
        self._dropping = 0  # or to be dropped
        self._long: _Long | None = None

    def feed(self, data: bytes) -> bytes:
        """Takes what arrived, and returns what the client is to see."""
        view, at = memoryview(data), 0
        passed: list[_Piece] = []
        while at < len(view):
            if self._passing or self._dropping:
                step = min(self._passing or self._dropping, len(view) - at)
                if self._passing:
                    passed.append(view[at : at + step])
                    self._passing -= step
                else:
                    self._dropping -= step
            elif self._long is not None:
                step = min(self._long.wanted - len(self._long.kept), len(view) - at)
                self._long.kept += view[at : at + step]
                passed += self._judge(self._long)
            else:
                step = min(_HEAD.size - len(self._head), len(view) - at)
                self._head += view[at : at + step]
                if len(self._head) == _HEAD.size:
                    passed += self._begin()
            at += step
        return data if len(passed) == 1 and len(passed[0]) == len(data) else b"".join(passed)

    def _begin(self) -> list[_Piece]:
        """Decides on the answer whose head has arrived."""
        head = bytes(self._head)
        self._head.clear()
        size, number = _HEAD.unpack(head)
        version = self._version_of(number) if size > self._max_bytes else None
        if size < 0:
            self._shortened(size, 0)
        if version is not None and version in VERSIONS:
            self._long = _Long(size, version, self._max_bytes, bytearray(head[_LENGTH.size :]))
            return []
        self._passing = max(0, size - (_HEAD.size - _LENGTH.size))
        return [head]

    def _judge(self, long: _Long) -> list[_Piece]:
        """What is passed on of a long answer now that some more of it is there."""
        if len(long.kept) < long.wanted:
            return []
        if not long.judged:
            long.judged = True
            found = first_batch(long.kept, long.version)
            begin, end = found or (0, long.size)
            if long.size - (end - begin) <= self._max_bytes:
                long.wanted = long.size
            else:
                long.wanted = min(long.size, max(long.wanted, end))
            if len(long.kept) < long.wanted:
                return []
        self._long = None
        if long.wanted == long.size:
            return [_LENGTH.pack(long.size), long.kept]
        beginning = beginning_of(long.kept, long.version)
        self._dropping = long.size - long.wanted
        self._shortened(long.size, len(beginning))
        return [_LENGTH.pack(len(beginning)), beginning]
