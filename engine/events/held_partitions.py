"""Partitions that can't be read further for now, while all others go on: each has a line in the log and a next try."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from kafka import TopicPartition

from engine.log_fields import at

log = logging.getLogger(__name__)

_RETRY_S = 10.0
_REPEAT_S = 60.0  # between two lines about the same partition


@dataclass
class _Hold:
    offset: int
    reason: str
    retry_at_s: float
    repeat_at_s: float


class HeldPartitions:
    """Keeps who is held, at which offset and why. A partition that has moved elsewhere is held no more.

    Args:
        position: the offset at which a partition is read next; None where it is not assigned.
    """

    def __init__(self, position: Callable[[TopicPartition], int | None]) -> None:
        self._position = position
        self._holds: dict[TopicPartition, _Hold] = {}

    def hold(self, partition: TopicPartition, offset: int, reason: str) -> None:
        """Holds a partition at an offset and says so, again and again while it stays there."""
        now_s = monotonic()
        hold = self._holds.get(partition)
        if hold is None or hold.offset != offset or hold.reason != reason or now_s >= hold.repeat_at_s:
            log.warning(
                "%s[%d] can't be read on from offset %d: %s; all others go on; the next try is in %g s",
                partition.topic, partition.partition, offset, reason, _RETRY_S,
                extra=at(partition.topic, partition.partition, offset),
            )  # fmt: skip
            hold = None
        repeat_at_s = now_s + _REPEAT_S if hold is None else hold.repeat_at_s
        self._holds[partition] = _Hold(offset, reason, now_s + _RETRY_S, repeat_at_s)

    def resting(self, partition: TopicPartition) -> bool:
        """Whether a partition is held, and its next try is not due yet."""
        hold = self._holds.get(partition)
        return hold is not None and self._stays(partition, hold) and monotonic() < hold.retry_at_s

    def reasons(self) -> dict[TopicPartition, str]:
        """Why each of the partitions that are held is."""
        for partition, hold in list(self._holds.items()):
            if not self._stays(partition, hold):
                del self._holds[partition]
                if (self._position(partition) or 0) > hold.offset:
                    where = partition.topic, partition.partition, hold.offset
                    log.warning("%s[%d] is read on from offset %d", *where, extra=at(*where))
        return {partition: hold.reason for partition, hold in self._holds.items()}

    def _stays(self, partition: TopicPartition, hold: _Hold) -> bool:
        return self._position(partition) == hold.offset
