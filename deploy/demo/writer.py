"""Writes to Kafka from the demo's event loop and learns where each record went."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from engine.config import KafkaConfig
from engine.events.kafka import connection_settings

_MAX_PENDING = 20_000
_BATCH_BYTES = 256 * 1024
_CHECK_S = 0.01


class WriteError(RuntimeError):
    """The log did not take a record."""


class LogWriter:
    """A producer that waits for the log's answer to every record, though never inside `send`.

    Args:
        linger_ms: how long a batch may wait for more records; 0 for events that should be seen at once.
    """

    def __init__(self, config: KafkaConfig, linger_ms: int) -> None:
        settings = connection_settings(config) | {"acks": "all", "linger_ms": linger_ms, "batch_size": _BATCH_BYTES}
        try:
            self._producer = KafkaProducer(**settings)
        except KafkaError as error:
            raise WriteError(f"no Kafka broker answers at {config.bootstrap}: {error}") from error
        self.sent = 0
        self.acked = 0
        self._counting = threading.Lock()  # records of different brokers may be answered by different threads
        self._failure: BaseException | None = None

    def send(self, topic: str, key: str, value: bytes, acked: Callable[[int, int], None] | None = None) -> None:
        """Hands one record over.

        Args:
            acked: called with partition and offset once the log has the record, from the producer's thread.

        Raises:
            WriteError: an earlier record was refused.
        """
        self._raise_failure()

        def done(metadata: Any) -> None:
            with self._counting:
                self.acked += 1
            if acked:
                acked(metadata.partition, metadata.offset)

        try:
            self._producer.send(topic, key=key.encode(), value=value).add_callback(done).add_errback(self._failed)
        except KafkaError as error:
            raise WriteError(f"{topic} can't be written: {error}") from error
        self.sent += 1

    @property
    def pending(self) -> int:
        """Records without an answer."""
        return self.sent - self.acked

    async def room(self) -> None:
        """Waits until few enough records are pending to send more, and lets other tasks run."""
        await self._wait(_MAX_PENDING)

    async def flush(self) -> None:
        """Waits until the log has all that was sent.

        Raises:
            WriteError: it refused a record.
        """
        await self._wait(0)

    def close(self) -> None:
        """Gives up what is pending."""
        with suppress(KafkaError):
            self._producer.close(timeout=1.0)

    async def _wait(self, pending: int) -> None:
        await asyncio.sleep(0)
        while self.pending > pending:
            self._raise_failure()
            await asyncio.sleep(_CHECK_S)
        self._raise_failure()

    def _failed(self, error: BaseException) -> None:
        self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise WriteError(f"a record could not be written: {self._failure!r}") from self._failure
