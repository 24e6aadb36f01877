"""Reads the dead-letters topic for people: its newest letters, and those that come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings

_POLL_MS = 200
_FETCH_WAIT_MS = 50


@dataclass(frozen=True)
class FoundLetter:
    """One letter as the topic has it.

    Attributes:
        written_ms: when it was written, since 1970.
        headers: the texts that `dead_letter` describes, as far as the letter has them.
    """

    written_ms: int
    headers: Mapping[str, str]
    key: bytes | None
    value: bytes | None


class LetterReader:
    """Reads the topic without a group: it commits nothing and disturbs nobody.

    Raises:
        kafka.errors.KafkaError: no broker answers.
        LookupError: the topic does not exist.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._patience_s = config.request_timeout_ms / 1000
        settings = connection_settings(config) | {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
        settings |= {"fetch_max_wait_ms": _FETCH_WAIT_MS, "fetch_max_bytes": config.max_answer_bytes}
        self._consumer = open_client(KafkaConsumer, settings)
        topic = config.dead_letters_topic
        numbers = self._consumer.partitions_for_topic(topic)
        if not numbers:
            self.close()
            raise LookupError(f"topic {topic!r} does not exist at {config.bootstrap}: the engine makes it at its start")
        self._partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        self._consumer.assign(self._partitions)

    def newest(self, limit: int, stop: threading.Event) -> list[FoundLetter]:
        """The newest letters, oldest of them first; `following` goes on behind them. Fewer where `stop` is set."""
        begins = self._consumer.beginning_offsets(self._partitions)
        ends = self._consumer.end_offsets(self._partitions)
        span = limit
        while True:
            starts = {at: max(begins[at], ends[at] - span) for at in self._partitions}
            found = list(self._between(starts, ends, stop)) if limit else []
            # Offsets without a letter, as transactions leave them, make the span hold fewer.
            if len(found) >= limit or starts == begins or stop.is_set():
                break
            span *= 8
        for partition, end in ends.items():
            self._consumer.seek(partition, end)
        return sorted(found, key=lambda letter: letter.written_ms)[-limit:] if limit else []

    def following(self, stop: threading.Event) -> Iterator[FoundLetter]:
        """The letters that come, until `stop` is set."""
        while not stop.is_set():
            fetched = self._consumer.poll(timeout_ms=0)
            for records in fetched.values():
                yield from map(_letter, records)
            if not fetched:
                stop.wait(_POLL_MS / 1000)  # A broker that never holds a fetch would be asked without a pause.

    def close(self) -> None:
        """Disconnects. Safe to call twice."""
        self._consumer.close()

    def _between(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], stop: threading.Event
    ) -> Iterator[FoundLetter]:
        for partition, start in starts.items():
            self._consumer.seek(partition, start)
        heard_s = time.monotonic()
        while not stop.is_set() and any(self._consumer.position(partition) < end for partition, end in ends.items()):
            fetched = self._consumer.poll(timeout_ms=_POLL_MS)
            for partition, records in fetched.items():
                yield from (_letter(record) for record in records if record.offset < ends[partition])
            if fetched:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > self._patience_s:
                raise KafkaTimeoutError(f"no letter came for {self._patience_s:g} s")


def _letter(record: Any) -> FoundLetter:
    headers = {name: bytes(value or b"").decode("utf-8", "backslashreplace") for name, value in record.headers}
    return FoundLetter(record.timestamp, headers, record.key, record.value)
