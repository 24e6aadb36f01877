"""The topic that says which models there are and which of them serves: read from its begin, followed, and written.

It has one partition, since its records count in their order, and is compacted, since the newest record of a key is all
that matters. It is read by a consumer of its own, which joins no group.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from kafka import TopicPartition
from kafka.errors import KafkaError

from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.consumer_settings import consumer_settings
from engine.events.log_consumer import LogConsumer
from engine.events.producer import close_producer, open_producer
from engine.events.topics import ensure_compacted
from engine.registry.errors import RegistryError
from engine.registry.ledger import LedgerRecord

_log = logging.getLogger(__name__)

_POLL_MS = 500
# Nobody waits for the milliseconds in which a model is heard of. It must be shorter than any kafka.request_timeout_ms.
_FETCH_MS = 80
_LOOK_S = 5.0  # between two looks whether the topic was made anew
_CLOSE_MS = 3000


class Batch(NamedTuple):
    """Records as they came, and the offset before which all were read. `at_end`: no more were there a moment ago."""

    records: Sequence[LedgerRecord]
    position: int
    at_end: bool


class ModelsTopic(Protocol):
    """The log of the registry; tests bring one in memory.

    Attributes:
        name: of the topic.
    """

    name: str

    def read(self, stop: threading.Event) -> Iterator[Batch]:
        """All records from the begin, then those that come, until `stop` is set. A batch comes at least each second.

        Raises:
            RegistryError: the topic can't be read, or begins anew; whoever reads has to begin anew as well.
        """

    def write(self, records: Sequence[tuple[str, bytes | None]]) -> int:
        """Appends records in their order; the offset of the last, once the log has all of them.

        Raises:
            RegistryError: the log does not take them; some may have come in.
        """


class KafkaModelsTopic:
    """The topic at a broker. It is made where it is missing."""

    def __init__(self, config: KafkaConfig, name: str) -> None:
        self._config = config.model_copy(update={"share": False})
        self.name = name

    def read(self, stop: threading.Event) -> Iterator[Batch]:
        try:
            ensure_compacted(self._config, self.name)
            settings = consumer_settings(self._config) | {"fetch_max_wait_ms": _FETCH_MS, "empty_fetch_ms": _FETCH_MS}
            consumer = open_client(LogConsumer, settings)
            try:
                yield from self._follow(consumer, stop)
            finally:
                consumer.close(timeout_ms=_CLOSE_MS)
        except KafkaError as error:
            raise RegistryError(f"registry.topic {self.name!r} can't be read: {_in_a_line(error)}") from error

    def _follow(self, consumer: LogConsumer, stop: threading.Event) -> Iterator[Batch]:
        partitions = consumer.partitions_for_topic(self.name) or {0}
        if partitions != {0}:
            raise RegistryError(
                f"registry.topic {self.name!r} must have 1 partition, because the order of its records counts, got"
                f" {len(partitions)}"
            )
        partition = TopicPartition(self.name, 0)
        consumer.assign([partition])
        consumer.seek(partition, consumer.beginning_offsets([partition])[partition])
        end = consumer.end_offsets([partition])[partition]
        looked_s = time.monotonic()
        while not stop.is_set():
            position = consumer.position(partition)
            if time.monotonic() - looked_s > _LOOK_S:
                looked_s, end = time.monotonic(), consumer.end_offsets([partition])[partition]
                if end < position:
                    raise RegistryError(f"registry.topic {self.name!r} was made anew: it ends at {end} now")
            fetched = consumer.poll(timeout_ms=0 if position < end else _POLL_MS)
            for reason in consumer.held().values():
                raise RegistryError(f"registry.topic {self.name!r} can't be read: {reason}")
            position = consumer.position(partition)
            yield Batch(_records(fetched.get(partition, ())), position, position >= end)

    def write(self, records: Sequence[tuple[str, bytes | None]]) -> int:
        try:
            producer = open_producer(self._config, self.name)
            try:
                sent = [producer.send(self.name, key=key.encode(), value=value, partition=0) for key, value in records]
                timeout_s = self._config.request_timeout_ms / 1000
                offsets = [one.get(timeout=timeout_s).offset for one in sent]
            finally:
                close_producer(producer, self._config)
        except KafkaError as error:
            raise RegistryError(f"registry.topic {self.name!r} does not take records: {_in_a_line(error)}") from error
        return int(offsets[-1])


def _records(fetched: Sequence[object]) -> list[LedgerRecord]:
    found = []
    for record in fetched:
        key, flaw = record.key, record.flaw  # type: ignore[attr-defined]
        if flaw is not None or key is None:
            _log.warning("a record of the models' topic can't be read, at offset %d", record.offset)  # type: ignore[attr-defined]
            continue
        found.append(LedgerRecord(record.offset, key.decode(errors="replace"), record.value))  # type: ignore[attr-defined]
    return found


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
