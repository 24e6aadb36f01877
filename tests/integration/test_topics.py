"""Topics that others make, change, delete and make again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.errors import KafkaError

from engine.config import KafkaConfig
from engine.events.connection import connection_settings
from engine.events.consumer_settings import consumer_settings
from engine.events.kafka import KafkaSource
from engine.events.log_consumer import LogConsumer
from engine.events.producer import producer_settings
from engine.events.source import SourceError, start_at_beginning
from engine.events.topics import ensure_topics, topic_id
from tests.integration.engines import running, until

pytestmark = pytest.mark.integration

DEADLINE_S = 30.0


@pytest.fixture
def admin(kafka_config: KafkaConfig) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(**connection_settings(kafka_config))) as admin:
        yield admin


def asked_by_a_consumer(config: KafkaConfig, topic: str, opened: ExitStack) -> None:
    consumer = opened.enter_context(closing(LogConsumer(**consumer_settings(config))))
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


@contextmanager
def reading(config: KafkaConfig) -> Iterator[KafkaSource]:
    """A source that has everything, and whose watch has seen the topics."""
    with closing(KafkaSource(config)) as source:
        until(lambda: start_at_beginning(source))
        until(lambda: source.caught_up() and source._topic_watch._first.keys() >= {config.events_topic})
        yield source


def ending(source: KafkaSource) -> str:
    """Polls until reading ends, and returns why."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            source.poll(0.1)
        except SourceError as error:
            return str(error)
    raise AssertionError("reading goes on")


def delete(admin: KafkaAdminClient, topic: str) -> None:
    admin.delete_topics([topic])
    until(lambda: topic not in admin.list_topics())


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("kind", ["events_topic", "items_topic"])
def test_a_topic_that_is_deleted_ends_reading_with_its_name_and_nobody_makes_it_again(
    kafka_config: KafkaConfig, admin: KafkaAdminClient, kind: str, share: bool
) -> None:
    config = kafka_config.model_copy(update={"share": share})
    topic = getattr(config, kind)
    with reading(config) as source:
        delete(admin, topic)
        assert f"topic {topic!r} was deleted while it was read: make it again" in ending(source)
    assert topic not in admin.list_topics()


@pytest.mark.parametrize("kind", ["events_topic", "items_topic"])
@pytest.mark.parametrize("records", [0, 50], ids=["offsets that do not fit", "offsets that fit"])
def test_a_topic_that_is_made_again_ends_reading_with_its_name(
    kafka_config: KafkaConfig, admin: KafkaAdminClient, kind: str, records: int
) -> None:
    topic = getattr(kafka_config, kind)
    if topic_id(kafka_config, topic) is None and records:
        pytest.skip("this broker gives its topics no ids")
    with closing(KafkaProducer(**producer_settings(kafka_config))) as producer, reading(kafka_config) as source:
        for number in range(10):
            producer.send(topic, key=b"%d" % number, value=b"old", partition=0).get(DEADLINE_S)
        until(lambda: source.poll(0.1) is not None and source.lag() == 0 and source._polled[(topic, 0)] == 10)
        delete(admin, topic)
        ensure_topics(kafka_config)
        with closing(KafkaProducer(**producer_settings(kafka_config))) as other:
            for number in range(records):
                other.send(topic, key=b"%d" % number, value=b"new", partition=0).get(DEADLINE_S)
        said = ending(source)
        # Which of the two is seen depends on how soon the topic was back.
        assert f"topic {topic!r} was deleted" in said or "no longer holds the records that come next" in said


def test_partitions_that_are_added_end_reading_with_the_remedy(
    kafka_config: KafkaConfig, admin: KafkaAdminClient
) -> None:
    with reading(kafka_config) as source:
        admin.create_partitions({kafka_config.events_topic: 5})
        assert "has 5 partitions now, and had 3: restart every engine" in ending(source)


def test_an_engine_of_a_group_ends_when_partitions_are_added(
    kafka_config: KafkaConfig, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    config = kafka_config.model_copy(update={"share": True})
    with running(config, tmp_path / "engine.log") as engine:
        admin.create_partitions({config.events_topic: 5})
        engine.line(r"ousel-engine: (.*has 5 partitions now, and had 3: restart every engine.*)")
        assert engine.process.wait(DEADLINE_S) == 1


def test_settings_that_lose_data_are_named_at_the_start_and_when_they_are_made(
    kafka_config: KafkaConfig, admin: KafkaAdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    items, events = kafka_config.items_topic, kafka_config.events_topic
    delete(admin, items)
    admin.create_topics({items: {"num_partitions": 1, "replication_factor": 1}})
    with reading(kafka_config.model_copy(update={"events_partitions": 9})) as source:
        until(lambda: f"topic {items!r} must be compacted and nothing else" in caplog.text)
        until(lambda: f"topic {events!r} has 3 partitions, kafka.events_partitions wants 9" in caplog.text)
        compacted = ConfigResource("TOPIC", events, configs={"cleanup.policy": "compact"})
        admin.alter_configs([compacted])
        until(lambda: f"topic {events!r} must not be compacted" in caplog.text)
        assert source.health().problems == 3
        assert source.poll(0) == []


def test_an_engine_whose_topic_is_deleted_ends_with_one_line_and_makes_no_topic(
    kafka_config: KafkaConfig, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """Neither its consumers nor its producers make the topic again, while they still ask for it."""
    with running(kafka_config, tmp_path / "engine.log") as engine:
        delete(admin, kafka_config.events_topic)
        assert engine.process.wait(DEADLINE_S) == 1
        last = engine.log().splitlines()[-1]
        assert last.startswith(f"ousel-engine: topic {kafka_config.events_topic!r} was deleted while it was read")
        assert "Traceback" not in engine.log()
    assert kafka_config.events_topic not in admin.list_topics()
