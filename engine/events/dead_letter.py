"""Dead letters: rejected records as the dead-letters topic holds them, with reason and position in headers.

Headers, all UTF-8: `reason`, `topic`, `partition`, `offset`, `timestamp` (of the record, in ms since 1970); and where
they apply `last_offset` (the letter stands for damaged records up to that offset), `truncated` (the full size of the
value in bytes) and `left_out` (the parts that the topic did not take).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engine.events.batch import Rejection

MAX_VALUE_BYTES = 64 * 1024
_MAX_KEY_BYTES = 64 * 1024
_MAX_REASON_BYTES = 4096
_OVERHEAD_BYTES = 400  # A letter in memory takes so much beside its texts.

Headers = tuple[tuple[str, bytes], ...]


class LettersUnwritten(RuntimeError):
    """Dead letters are not written yet, so no position beyond them is safe."""


class DeadLetters(Protocol):
    """Takes the records that the decoder rejected."""

    def publish(self, rejections: Sequence[Rejection]) -> None:
        """Hands rejections over. Never raises: a dead letter is no reason to stop the stream."""

    def settle(self) -> None:
        """Waits until every letter that was published before is written.

        Raises:
            LettersUnwritten: some can't be written now.
        """


class MemoryDeadLetters:
    """Keeps rejections in a list, for tests that need no broker."""

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []

    def publish(self, rejections: Sequence[Rejection]) -> None:
        self.rejections.extend(rejections)

    def settle(self) -> None:
        pass


class LetterId(NamedTuple):
    """The record that a letter is about. The timestamp tells a topic from one that was deleted and made again."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True)
class Letter:
    """One record of the dead-letters topic."""

    id: LetterId
    key: bytes | None
    value: bytes
    headers: Headers

    @classmethod
    def of(cls, rejection: Rejection) -> Letter:
        """The letter about a rejected record: its key and value, each cut where it is longer than 64 KiB."""
        record = rejection.record
        value, key = record.value or b"", record.key
        identity = LetterId(record.topic, record.partition, record.offset, record.timestamp_ms)
        headers = [
            ("reason", rejection.reason.encode("utf-8", "backslashreplace")[:_MAX_REASON_BYTES]),
            ("topic", record.topic.encode()),
            ("partition", b"%d" % record.partition),
            ("offset", b"%d" % record.offset),
            ("timestamp", b"%d" % record.timestamp_ms),
        ]
        if record.flaw is not None:
            headers.append(("last_offset", b"%d" % record.flaw.last_offset))
        if len(value) > MAX_VALUE_BYTES:
            headers.append(("truncated", b"%d" % len(value)))
        return cls(identity, key and key[:_MAX_KEY_BYTES], value[:MAX_VALUE_BYTES], tuple(headers))

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes while it waits."""
        texts = sum(len(name) + len(value) for name, value in self.headers)
        return _OVERHEAD_BYTES + texts + len(self.key or b"") + len(self.value)

    def smaller(self) -> Letter | None:
        """The same with less in it, for a topic that does not take it whole; None where nothing can be left out.

        First goes the value; then the key is replaced by the position, which a compacted topic takes as well.
        """
        headers = dict(self.headers)
        if self.value:
            headers.setdefault("truncated", b"%d" % len(self.value))
            headers["left_out"] = b"value"
            return Letter(self.id, self.key, b"", tuple(headers.items()))
        position = f"{self.id.topic}-{self.id.partition}-{self.id.offset}".encode()
        if self.key == position:
            return None
        headers["left_out"] = b"value, key"
        headers["reason"] = headers["reason"][:200]
        return Letter(self.id, position, b"", tuple(headers.items()))


def letter_id(headers: Sequence[tuple[str, bytes]]) -> LetterId | None:
    """The record that a letter found in the topic is about; None where its headers don't say so."""
    known = dict(headers)
    try:
        topic = known["topic"].decode()
        partition, offset, timestamp_ms = (int(known[name]) for name in ("partition", "offset", "timestamp"))
    except (KeyError, ValueError, AttributeError):
        return None
    return LetterId(topic, partition, offset, timestamp_ms)
