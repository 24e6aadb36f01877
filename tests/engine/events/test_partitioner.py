"""The engine's producer and stock ones must choose the same partition for a key, or a user has two histories."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Message, Producer
from kafka import KafkaProducer
from kafka.partitioner.default import murmur2

from engine.config import KafkaConfig
from engine.events.producer import producer_settings

PARTITIONS = 4  # of a topic that librdkafka's mock broker makes
KEYS = [f"user-{n}".encode() for n in range(100)] + ["é".encode(), b"1716", b"x" * 256]


class Topic:
    def topics(self) -> set[str]:
        return {"t"}

    def partitions_for_topic(self, _: str) -> set[int]:
        return set(range(PARTITIONS))

    available_partitions_for_topic = partitions_for_topic


def of_the_engine(key: bytes) -> int:
    settings = KafkaProducer.DEFAULT_CONFIG | producer_settings(KafkaConfig())
    partition: int = settings["partitioner"].partition("t", key, key, b"", b"", Topic())
    return partition


def of_librdkafka(**settings: Any) -> dict[bytes, int]:
    """The partition of each key, as librdkafka's own mock of a broker takes it."""
    found: dict[bytes, int] = {}

    def delivered(error: object, message: Message) -> None:
        assert error is None
        found[message.key() or b""] = message.partition() or 0

    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0} | settings)
    for key in KEYS:
        producer.produce("t", key=key, value=b"", on_delivery=delivered)
    assert producer.flush(30) == 0
    return found


def test_the_engines_producer_uses_murmur2_as_javas_clients_do():
    assert [of_the_engine(key) for key in KEYS] == [(murmur2(key) & 0x7FFFFFFF) % PARTITIONS for key in KEYS]
    assert of_the_engine(b"21") == (-973932308 & 0x7FFFFFFF) % PARTITIONS  # a hash that Kafka's own tests state


@pytest.mark.parametrize("partitioner", ["murmur2_random", "murmur2"])
def test_librdkafka_agrees_with_the_engine_where_it_is_set_to_murmur2(partitioner: str):
    assert of_librdkafka(partitioner=partitioner) == {key: of_the_engine(key) for key in KEYS}


def test_librdkafka_by_default_does_not_agree():
    """If it agreed, docs/kafka.md would name a setting that nobody needs."""
    assert of_librdkafka() != {key: of_the_engine(key) for key in KEYS}
