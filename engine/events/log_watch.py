"""Looks after the broker and the topics while the log is read: does a broker answer, and has a topic changed?"""

from __future__ import annotations

import logging
import time

from kafka import KafkaConsumer

from engine.config import KafkaConfig
from engine.events.source import Assignment, SourceError

log = logging.getLogger(__name__)

_CHECK_S = 1.0  # between two checks


class LogWatch:
    """Checks the connection and the topics once a second; it belongs to the thread that polls the consumer.

    Attributes:
        connected: whether the consumer had a connection to a broker at the last check.
    """

    def __init__(self, config: KafkaConfig, consumer: KafkaConsumer) -> None:
        self._config = config
        self._consumer = consumer
        self._check_at = time.monotonic() + _CHECK_S
        self.connected = True

    def check(self, assignment: Assignment | None) -> None:
        """Checks everything if a check is due.

        Raises:
            SourceError: reading can't go on as the log is now.
        """
        if time.monotonic() < self._check_at:
            return
        self._check_at = time.monotonic() + _CHECK_S
        self._check_connection()
        if assignment is not None and not self._config.share:  # with a share, the group deals new partitions out
            self._check_partitions(assignment)

    def _check_connection(self) -> None:
        """Says once that the broker went, and once that it is back; the client itself reconnects."""
        now = self._consumer.metrics()["consumer-metrics"].get("connection-count", 0) > 0
        if self.connected and not now:
            log.warning("no Kafka broker answers at %s; reading goes on once one does", self._config.bootstrap)
        elif now and not self.connected:
            log.warning("connected to Kafka at %s again", self._config.bootstrap)
        self.connected = now

    def _check_partitions(self, assignment: Assignment) -> None:
        for topic, had in assignment.totals.items():
            now = len(self._consumer.partitions_for_topic(topic) or ())
            if now > had:
                raise SourceError(f"topic {topic!r} has {now} partitions now, and had {had}: restart every engine")
