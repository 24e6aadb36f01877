"""Looks after the connection while the log is read, and says when it goes and when it is back."""

from __future__ import annotations

import logging
import time

from kafka import KafkaConsumer

from engine.config import KafkaConfig

log = logging.getLogger(__name__)

_CHECK_S = 1.0  # between two checks


class LogWatch:
    """Checks the connection once a second; it belongs to the thread that polls the consumer.

    A broker that starts may close a connection that it has just taken, and the client opens the next one at once. So
    the connection is said to be gone when two checks in a row found none.

    Attributes:
        connected: whether the consumer had a connection to a broker at the last check.
    """

    def __init__(self, config: KafkaConfig, consumer: KafkaConsumer) -> None:
        self._config = config
        self._consumer = consumer
        self._check_at = time.monotonic() + _CHECK_S
        self.connected = True
        self._said_gone = False

    def check(self) -> None:
        """Checks the connection if a check is due."""
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + _CHECK_S
            self._check_connection()

    def _check_connection(self) -> None:
        """Says once that the broker went, and once that it is back; the client itself reconnects."""
        now = self._consumer.metrics()["consumer-metrics"].get("connection-count", 0) > 0
        if now and self._said_gone:
            log.warning("connected to Kafka at %s again", self._config.bootstrap)
            self._said_gone = False
        elif not (now or self.connected or self._said_gone):
            log.warning("no Kafka broker answers at %s; reading goes on once one does", self._config.bootstrap)
            self._said_gone = True
        self.connected = now
