"""From where on a topic still shows each deletion that was ever written to it.

Compaction removes the tombstone of a deleted item `delete.retention.ms` after it has first come by it. Whoever goes on
reading from an offset before that may never hear of the deletion.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from kafka import TopicPartition

from engine.events.source import LogRange, Partition
from engine.events.topic_state import TopicState

# Clocks differ, and reading takes its time.
_MARGIN_MS = 600_000


class TimeIndex(Protocol):
    """A `KafkaConsumer`, as far as it is asked here."""

    def offsets_for_times(self, timestamps: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, Any]: ...


def deletions_from(
    consumer: TimeIndex, topic: TopicState | None, ranges: Mapping[TopicPartition, LogRange]
) -> dict[Partition, int]:
    """The offset from which on no tombstone can have been removed yet, of each partition of a topic.

    Args:
        topic: None where the broker does not tell; then nobody knows, and the answer is empty.
        ranges: what the log holds of the topic's partitions.

    Raises:
        kafka.errors.KafkaError: the broker is away.
    """
    if topic is None or not topic.cleanup:
        return {}
    if not topic.compacted:
        return {(p.topic, p.partition): held.begin for p, held in ranges.items()}
    found: Mapping[TopicPartition, Any] = {}
    retention_ms = int(topic.settings.get("delete.retention.ms", 0))
    # Only times that the broker gave rise with the offsets, and say when a record came.
    if topic.settings.get("message.timestamp.type") == "LogAppendTime" and retention_ms > _MARGIN_MS:
        since_ms = int(time.time() * 1000) - retention_ms + _MARGIN_MS
        found = consumer.offsets_for_times(dict.fromkeys(ranges, since_ms))
    return {
        (p.topic, p.partition): held.end if found.get(p) is None else int(found[p].offset) for p, held in ranges.items()
    }
