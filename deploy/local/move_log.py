"""Copies the events and the catalog of one broker to another, record by record, into topics that are empty there.

    OUSEL_KAFKA__BOOTSTRAP=broker1:9092 python -m deploy.local.move_log --from 127.0.0.1:9092

The variables of Ousel say where to and how (`OUSEL_KAFKA__*`, as for the engine), and name the topics, which have the
same names on both sides. Partition, order, key, value, headers and time of each record stay. Nobody may write
meanwhile. Dead letters are not copied: an engine that reads the records again writes them again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.errors import KafkaError

from engine.config import ConfigError, KafkaConfig, load_config
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings

_POLL_MS = 200
_PATIENCE_S = 30.0
_SAY_S = 5.0
_CREATED, _APPENDED = "CreateTime", "LogAppendTime"


class MoveError(RuntimeError):
    """The log can't be moved; the message says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.move_log", description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", default="127.0.0.1:9092", help="host:port (default: %(default)s)")
    address = parser.parse_args().source
    try:
        target = load_config().kafka
        copied = move(target.model_copy(update=_PLAIN | {"bootstrap": address}), target)
    except ConfigError as error:
        print(f"move_log: {error}", file=sys.stderr)
        return 2
    except MoveError as error:
        print(f"move_log: {error}", file=sys.stderr)
        return 1
    except KafkaError as error:
        print(f"move_log: {address} or {target.bootstrap} does not do as asked: {error}", file=sys.stderr)
        return 1
    for topic, records in copied.items():
        print(f"{topic}: {records} records copied, and as many are there")
    return 0


# The embedded broker has neither TLS nor passwords.
_PLAIN: dict[str, Any] = {
    "security_protocol": "PLAINTEXT",
    "sasl_mechanism": None,
    "sasl_username": None,
    "sasl_password": None,
    "ssl_cafile": None,
    "ssl_certfile": None,
    "ssl_keyfile": None,
}


def move(source: KafkaConfig, target: KafkaConfig) -> dict[str, int]:
    """Copies both topics; returns the number of records by topic.

    Raises:
        MoveError: a topic of the target has records or other partitions, or fewer records came than the source has.
        kafka.errors.KafkaError: a broker is away or refuses something.
    """
    reading = connection_settings(source) | {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
    reading |= {"isolation_level": "read_committed"}
    with closing(open_client(KafkaConsumer, reading)) as consumer:
        partitions = {}
        for topic in (source.events_topic, source.items_topic):
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                raise MoveError(f"topic {topic!r} does not exist at {source.bootstrap}")
            partitions[topic] = [TopicPartition(topic, number) for number in sorted(numbers)]
        _make_topics(target, {topic: len(found) for topic, found in partitions.items()})
        writing = connection_settings(target) | {"acks": "all", "linger_ms": 20, "batch_size": 256 << 10}
        with closing(open_client(KafkaProducer, writing)) as producer:
            copied = {topic: _copy(consumer, producer, found) for topic, found in partitions.items()}
    _check(target, copied)
    _set_time(target, _APPENDED)
    return copied


def _make_topics(config: KafkaConfig, partitions: Mapping[str, int]) -> None:
    """Topics that take the times of the records; those that exist must be empty and have as many partitions."""
    with closing(open_client(KafkaAdminClient, connection_settings(config))) as admin:
        existing = set(admin.list_topics())
        policies = {config.events_topic: {"retention.ms": "-1"}, config.items_topic: {"cleanup.policy": "compact"}}
        missing = {
            topic: {
                "num_partitions": count,
                "replication_factor": config.replication_factor,
                "configs": policies[topic],
            }
            for topic, count in partitions.items()
            if topic not in existing
        }
        if missing:
            admin.create_topics(missing, timeout_ms=config.request_timeout_ms)
            admin.wait_for_topics(list(missing), timeout_ms=config.request_timeout_ms)
    with closing(open_client(KafkaConsumer, connection_settings(config) | {"enable_auto_commit": False})) as consumer:
        for topic, count in partitions.items():
            numbers = consumer.partitions_for_topic(topic) or ()
            if len(numbers) != count:
                raise MoveError(
                    f"topic {topic!r} at {config.bootstrap} must have {count} partitions, has {len(numbers)}"
                )
            held = sum(consumer.end_offsets([TopicPartition(topic, number) for number in numbers]).values())
            if held:
                raise MoveError(f"topic {topic!r} at {config.bootstrap} must be empty, it has had {held} records")
    _set_time(config, _CREATED)


def _set_time(config: KafkaConfig, kind: str) -> None:
    """Whether the broker keeps the times of the records that come, or gives them its own, as an engine wants it."""
    with closing(open_client(KafkaAdminClient, connection_settings(config))) as admin:
        admin.alter_configs(
            [
                ConfigResource("topic", topic, {"message.timestamp.type": kind})
                for topic in (config.events_topic, config.items_topic)
            ]
        )


def _copy(consumer: KafkaConsumer, producer: KafkaProducer, partitions: list[TopicPartition]) -> int:
    copied, said_s = 0, time.monotonic()
    failed: list[BaseException] = []
    for partition in partitions:
        for record in _records(consumer, partition):
            producer.send(
                partition.topic,
                partition=partition.partition,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                timestamp_ms=record.timestamp,
            ).add_errback(failed.append)
            copied += 1
            if time.monotonic() - said_s > _SAY_S:
                said_s = time.monotonic()
                print(f"{partition.topic}: {copied} records so far", flush=True)
    producer.flush()
    if failed:
        raise MoveError(f"a record of {partitions[0].topic} could not be written: {failed[0]!r}")
    return copied


def _records(consumer: KafkaConsumer, partition: TopicPartition) -> Iterator[Any]:
    """All records of a partition, in order."""
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    end = consumer.end_offsets([partition])[partition]
    heard_s = time.monotonic()
    while consumer.position(partition) < end:
        fetched = consumer.poll(timeout_ms=_POLL_MS).get(partition, [])
        yield from fetched
        if fetched:
            heard_s = time.monotonic()
        elif time.monotonic() - heard_s > _PATIENCE_S:
            raise MoveError(f"nothing came of {partition.topic}[{partition.partition}] for {_PATIENCE_S:g} s")


def _check(config: KafkaConfig, copied: Mapping[str, int]) -> None:
    with closing(open_client(KafkaConsumer, connection_settings(config) | {"enable_auto_commit": False})) as consumer:
        for topic, records in copied.items():
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            there = sum(consumer.end_offsets(partitions).values())
            if there != records:
                raise MoveError(f"{records} records of {topic} were copied, and {there} are at {config.bootstrap}")


if __name__ == "__main__":
    sys.exit(main())
