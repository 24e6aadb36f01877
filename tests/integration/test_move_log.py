"""A log moves from the embedded broker to another one, as docs/kafka.md tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from ousel.v1 import catalog_pb2

from deploy.local.broker import EmbeddedBroker
from deploy.local.move_log import MoveError, move
from engine.config import KafkaConfig
from engine.events.connection import connection_settings
from engine.events.topic_state import describe_topics
from engine.events.topics import ensure_topics
from tests.integration.engines import ITEMS, purchase, write

pytestmark = pytest.mark.integration

EVENTS = 300


@pytest.fixture
def target(kafka_config: KafkaConfig) -> KafkaConfig:
    """The session's broker, with names of topics that it does not have."""
    names = {name: f"{getattr(kafka_config, name)}.moved" for name in ("events_topic", "items_topic")}
    return kafka_config.model_copy(update=names)


@pytest.fixture
def source(target: KafkaConfig, tmp_path: Path) -> Iterator[KafkaConfig]:
    """A log with the target's topics in an embedded broker of its own, longer than one answer may be."""
    with EmbeddedBroker(tmp_path / "source") as broker:
        config = KafkaConfig(
            bootstrap=broker.bootstrap,
            events_topic=target.events_topic,
            items_topic=target.items_topic,
            events_partitions=3,
            max_answer_bytes=64 << 10,
        )
        ensure_topics(config)
        events = [purchase(f"u{at % 10}", ITEMS[at % 40], f"e{at}") for at in range(EVENTS)]
        for event in events:
            event.attributes["note"] = "n" * 1000
        write(config, events, [catalog_pb2.Item(item_id=item, title=f"Title {item}") for item in ITEMS])
        yield config


def records(config: KafkaConfig) -> list[tuple[Any, ...]]:
    """All of both topics, by partition and offset."""
    found = []
    with closing(KafkaConsumer(**connection_settings(config) | {"enable_auto_commit": False})) as consumer:
        numbers = {topic: consumer.partitions_for_topic(topic) for topic in (config.events_topic, config.items_topic)}
        partitions = [TopicPartition(topic, number) for topic, held in numbers.items() for number in held or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for batch in consumer.poll(timeout_ms=200).values():
                found += [(r.topic, r.partition, r.offset, r.key, r.value, r.timestamp) for r in batch]
    return sorted(found)


def test_every_record_keeps_its_place_its_content_and_its_time(source: KafkaConfig, target: KafkaConfig) -> None:
    assert move(source, target) == {source.events_topic: EVENTS, source.items_topic: len(ITEMS)}
    moved = records(target)
    assert moved == records(source)
    assert len(moved) == EVENTS + len(ITEMS)
    with closing(KafkaAdminClient(**connection_settings(target))) as admin:
        topics = describe_topics(admin, [target.events_topic, target.items_topic])
    events, items = topics[target.events_topic], topics[target.items_topic]
    assert events is not None
    assert items is not None
    # As an engine wants them: the broker gives the time of what comes now, and nothing old is deleted.
    assert {topic.settings["message.timestamp.type"] for topic in (events, items)} == {"LogAppendTime"}
    assert (events.expires, items.compacted) == (False, True)


def test_a_log_is_not_moved_onto_another(source: KafkaConfig, target: KafkaConfig) -> None:
    ensure_topics(target)
    write(target, [purchase("u1", "i1", "e1")])
    with pytest.raises(MoveError, match=r"must be empty, it has had 1 records"):
        move(source, target)
    assert len(records(target)) == 1
