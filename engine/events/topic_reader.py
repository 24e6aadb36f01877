"""Reads a topic once from its begin, beside the source that follows the log, and disturbs nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kafka import TopicPartition
from kafka.errors import KafkaError

from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.consumer_settings import consumer_settings
from engine.events.log_consumer import LogConsumer
from engine.events.records import Records
from engine.events.source import BrokerAway, Partition, SourceError

_POLL_MS = 200
_CLOSE_MS = 3000


def read_from_begin(config: KafkaConfig, ends: Mapping[Partition, int]) -> Iterator[Records]:
    """All records of these partitions below `ends`, in few batches; records behind that may be among them.

    It joins no group and commits nothing. A batch without a record comes at least every `_POLL_MS`, so that whoever
    iterates may stop.

    Raises:
        SourceError: the broker is away, or a partition can't be read.
    """
    with _opened(config) as consumer:
        left = {TopicPartition(*partition): end for partition, end in ends.items()}
        consumer.assign([*left])
        for partition, begin in consumer.beginning_offsets([*left]).items():
            consumer.seek(partition, begin)
        heard_s = time.monotonic()
        while True:
            positions = {partition: consumer.position(partition, timeout_ms=0) for partition in left}
            read = [partition for partition, at in positions.items() if at is not None and at >= left[partition]]
            consumer.pause(*read)
            left = {partition: end for partition, end in left.items() if partition not in read}
            if not left:
                return
            fetched = consumer.poll(timeout_ms=_POLL_MS)
            for partition, reason in consumer.held().items():
                raise SourceError(f"{partition.topic}[{partition.partition}] can't be read: {reason}")
            if fetched:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > config.request_timeout_ms / 1000:
                raise BrokerAway(f"no record came from {config.bootstrap} for {config.request_timeout_ms / 1000:g} s")
            yield Records.fetched(fetched.values())


@contextmanager
def _opened(config: KafkaConfig) -> Iterator[LogConsumer]:
    try:
        consumer = open_client(LogConsumer, consumer_settings(config.model_copy(update={"share": False})))
        try:
            yield consumer
        finally:
            consumer.close(timeout_ms=_CLOSE_MS)
    except KafkaError as error:
        raise BrokerAway(f"{config.bootstrap} does not let read: {error}") from error
