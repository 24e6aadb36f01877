"""Which dead letters the topic has already: a restart decodes the same bad records again, and must not repeat them.

Shapes: L letters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError
from numpy.typing import NDArray

from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings
from engine.events.dead_letter import LetterId, letter_id
from engine.events.source import Partition

_MAX_LETTERS = 5_000_000  # 40 MB
_MERGE = 16_384  # letters added one by one before they are sorted in
_POLL_MS = 200
_FETCH_WAIT_MS = 50


class WrittenLetters:
    """The letters that a topic holds, by the records that they are about.

    Of a topic whose oldest letters are gone by its retention, the records before the oldest known one of a partition
    count as written, too: they were, and an operator who let them go wants no copies. Beyond 5,000,000 letters some are
    forgotten, whichever they are, and may be written twice.

    Attributes:
        ends: where reading the topic goes on, by its partitions.
    """

    def __init__(self) -> None:
        self.ends: dict[TopicPartition, int] = {}
        self._hashes: NDArray[np.int64] = np.empty(0, np.int64)  # [L], sorted
        self._recent: set[int] = set()
        self._oldest_gone = False
        self._oldest: dict[Partition, LetterId] = {}

    def __contains__(self, letter: LetterId) -> bool:
        code = hash(letter)
        if code in self._recent:
            return True
        place = int(np.searchsorted(self._hashes, code))
        if place < len(self._hashes) and self._hashes[place] == code:
            return True
        oldest = self._oldest.get((letter.topic, letter.partition)) if self._oldest_gone else None
        return oldest is not None and letter.offset < oldest.offset and letter.timestamp_ms <= oldest.timestamp_ms

    def __len__(self) -> int:
        return len(self._hashes) + len(self._recent)

    def add(self, letter: LetterId) -> None:
        """Notes a letter that the topic has."""
        self._recent.add(hash(letter))
        partition = (letter.topic, letter.partition)
        if partition not in self._oldest or letter.offset < self._oldest[partition].offset:
            self._oldest[partition] = letter
        if len(self._recent) >= _MERGE:
            merged = np.union1d(self._hashes, np.fromiter(self._recent, np.int64, len(self._recent)))
            self._recent.clear()
            self._hashes = merged[:_MAX_LETTERS]

    def miss_oldest(self) -> None:
        """Notes that the topic held letters once that are gone."""
        self._oldest_gone = True


def read_written(written: WrittenLetters, config: KafkaConfig, stop: threading.Event) -> None:
    """Adds the letters that the dead-letters topic has since it was read last, or ends early where `stop` is set.

    Raises:
        kafka.errors.KafkaError: the topic can't be read, or nothing came for as long as a request may take.
    """
    settings = connection_settings(config) | {
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "fetch_max_wait_ms": _FETCH_WAIT_MS,  # It must be shorter than any kafka.request_timeout_ms.
        "fetch_max_bytes": config.max_answer_bytes,
    }
    consumer = open_client(KafkaConsumer, settings)
    try:
        numbers = consumer.partitions_for_topic(config.dead_letters_topic) or ()
        partitions = [TopicPartition(config.dead_letters_topic, number) for number in numbers]
        if not partitions:
            return  # The topic is gone, and with it the letters.
        consumer.assign(partitions)
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        for partition in partitions:
            known = written.ends.get(partition, 0)
            # A topic that was made again begins anew.
            consumer.seek(partition, known if begins[partition] <= known <= ends[partition] else begins[partition])
        if any(begins.values()):
            written.miss_oldest()
        for letter in _letters(consumer, ends, config.request_timeout_ms / 1000, stop):
            written.add(letter)
        if not stop.is_set():
            written.ends = dict(ends)
    finally:
        consumer.close(timeout_ms=config.request_timeout_ms)


def _letters(
    consumer: KafkaConsumer, ends: Mapping[TopicPartition, int], patience_s: float, stop: threading.Event
) -> Iterable[LetterId]:
    """The letters up to these ends."""
    behind = {partition for partition, end in ends.items() if consumer.position(partition) < end}
    heard_s = time.monotonic()
    while behind and not stop.is_set():
        fetched: Mapping[TopicPartition, list[Any]] = consumer.poll(timeout_ms=_POLL_MS)
        for records in fetched.values():
            yield from filter(None, (letter_id(record.headers) for record in records))
        behind = {partition for partition in behind if consumer.position(partition) < ends[partition]}
        if fetched:
            heard_s = time.monotonic()
        elif time.monotonic() - heard_s > patience_s:
            raise KafkaTimeoutError(f"no letter came for {patience_s:g} s")
