"""Asks the broker where partitions end now, for callers who can't rely on what a reader has last heard of it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings
from engine.events.source import Partition

_ASK_MS = 2000  # A broker that is frozen or away must not keep the answers of the others for long.
_CLOSE_MS = 1000


class KafkaLogEnds:
    """Connects when it is first asked. One thread asks, and closes."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._consumer: KafkaConsumer | None = None

    def ask(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """One past the last record of each of `partitions`; those are left out whose broker does not answer.

        Raises:
            kafka.errors.KafkaError: no broker answers.
        """
        consumer = self._connected()
        try:
            return self._ends(consumer, partitions)
        except KafkaError:
            ends: dict[Partition, int] = {}
            for partition in partitions if len(partitions) > 1 else ():
                with suppress(KafkaError):
                    ends |= self._ends(consumer, [partition])
            if not ends:
                raise
            return ends

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close(timeout_ms=_CLOSE_MS)

    def _ends(self, consumer: KafkaConsumer, partitions: Collection[Partition]) -> dict[Partition, int]:
        # With records of open transactions: such a record exists, though it can't be read yet.
        found = consumer.end_offsets([TopicPartition(*partition) for partition in partitions], timeout_ms=_ASK_MS)
        return {(partition.topic, partition.partition): end for partition, end in found.items()}

    def _connected(self) -> KafkaConsumer:
        if self._consumer is None:
            settings = connection_settings(self._config) | {"bootstrap_timeout_ms": _ASK_MS}
            self._consumer = open_client(KafkaConsumer, settings | {"enable_auto_commit": False})
        return self._consumer
