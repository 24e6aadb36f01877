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

    Attributes:
        connected: whether the consumer had a connection to a broker at the last check.
    """

    def __init__(self, config: KafkaConfig, consumer: KafkaConsumer) -> None:
        self._config = config
        self._consumer = consumer
        self._check_at = time.monotonic() + _CHECK_S
        self.connected = True

    def check(self) -> None:
        """Checks the connection if a check is due."""
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + _CHECK_S
            self._check_connection()

    def _check_connection(self) -> None:
        """Says once that the broker went, and once that it is back; the client itself reconnects."""
        now = self._consumer.metrics()["consumer-metrics"].get("connection-count", 0) > 0
        if self.connected and not now:
            log.warning("no Kafka broker answers at %s; reading goes on once one does", self._config.bootstrap)
        elif now and not self.connected:
            log.warning("connected to Kafka at %s again", self._config.bootstrap)
        self.connected = now
