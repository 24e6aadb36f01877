"""Topics that others make, change, delete and make again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from engine.config import KafkaConfig
from engine.events.connection import connection_settings
from engine.events.consumer_settings import consumer_settings
from engine.events.producer import producer_settings

pytestmark = pytest.mark.integration

DEADLINE_S = 30.0


@pytest.fixture
def admin(kafka_config: KafkaConfig) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(**connection_settings(kafka_config))) as admin:
        yield admin


def asked_by_a_consumer(config: KafkaConfig, topic: str, opened: ExitStack) -> None:
    consumer = opened.enter_context(closing(KafkaConsumer(**consumer_settings(config))))
    consumer.subscribe([topic]) if config.share else consumer.partitions_for_topic(topic)
    consumer.poll(timeout_ms=500)


def asked_by_a_producer(config: KafkaConfig, topic: str, opened: ExitStack) -> None:
    producer = opened.enter_context(closing(KafkaProducer(**producer_settings(config) | {"max_block_ms": 500})))
    with pytest.raises(KafkaError):
        producer.partitions_for(topic)


def asked_by_a_committer(config: KafkaConfig, topic: str, opened: ExitStack) -> None:
    settings = connection_settings(config) | {"group_id": config.group_id, "enable_auto_commit": False}
    consumer = opened.enter_context(closing(KafkaConsumer(**settings)))
    consumer.subscribe([topic])
    consumer.poll(timeout_ms=500)


@pytest.mark.parametrize("ask", [asked_by_a_consumer, asked_by_a_producer, asked_by_a_committer])
@pytest.mark.parametrize("share", [False, True])
def test_no_client_makes_a_topic_by_asking_for_it(
    kafka_config: KafkaConfig, admin: KafkaAdminClient, ask: Callable[..., None], share: bool
) -> None:
    """Apache Kafka makes a topic for whoever asks for it and does not say no."""
    absent = f"absent.{uuid.uuid4().hex}"
    with ExitStack() as opened:
        ask(kafka_config.model_copy(update={"share": share}), absent, opened)
        assert absent not in admin.list_topics()


def test_topics_that_are_created_bear_the_brokers_time(kafka_config: KafkaConfig) -> None:
    """A producer that stamps its record 2100 gets the broker's time, and so does an event without a time of its own."""
    began_ms = time.time() * 1000
    with closing(KafkaProducer(**producer_settings(kafka_config))) as producer:
        for topic in (kafka_config.events_topic, kafka_config.items_topic, kafka_config.dead_letters_topic):
            stamped = producer.send(topic, key=b"k", value=b"v", timestamp_ms=4_102_444_800_000).get(DEADLINE_S)
            assert abs(stamped.timestamp - began_ms) < DEADLINE_S * 1000
