"""A log that is longer than an answer may be: the embedded broker answers with all of it, whatever it is asked for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from kafka import KafkaProducer
from ousel.v1 import catalog_pb2, event_pb2

from deploy.local.broker import EmbeddedBroker
from deploy.local.brokers import Broker
from engine.config import KafkaConfig
from engine.events import log_consumer
from engine.events.batch import Record, Rejection
from engine.events.dead_letter import Letter
from engine.events.kafka import KafkaSource
from engine.events.letter_reader import LetterReader
from engine.events.letters_written import WrittenLetters, read_written
from engine.events.producer import producer_settings
from engine.events.source import start_at_beginning
from engine.events.topic_reader import read_from_begin

pytestmark = pytest.mark.integration

DEADLINE_S = 60.0
RECORDS, RECORD_BYTES = 900, 1000
LINE = "where kafka.max_answer_bytes allows 65536"


@pytest.fixture
def small(kafka_config: KafkaConfig) -> KafkaConfig:
    """At most 64 KiB of an answer are used."""
    return kafka_config.model_copy(update={"max_answer_bytes": 64 << 10})


def write(config: KafkaConfig, topic: str, value: Callable[[int], bytes]) -> None:
    """900 records of about 1,000 bytes, in batches that are far smaller than an answer."""
    with closing(KafkaProducer(**producer_settings(config) | {"batch_size": 8 << 10})) as producer:
        sent = [producer.send(topic, key=b"%d" % number, value=value(number)) for number in range(RECORDS)]
        for future in sent:
            future.get(DEADLINE_S)


def event(number: int) -> bytes:
    made = event_pb2.Event(event_id=str(number), user_id=f"u{number}", item_id="i")
    made.attributes["note"] = "n" * RECORD_BYTES
    return made.SerializeToString()


def item(number: int) -> bytes:
    return catalog_pb2.Item(item_id=str(number), title="t" * RECORD_BYTES).SerializeToString()


def test_every_record_is_read_once_and_in_order(
    small: KafkaConfig, broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(small, small.events_topic, event)
    largest: list[int] = []
    parse = log_consumer._LogFetcher._parse_fetched_data

    def measured(self: log_consumer._LogFetcher, completed_fetch: object) -> object:
        largest.append(len(completed_fetch.partition_data.records or b""))  # type: ignore[attr-defined]
        return parse(self, completed_fetch)

    monkeypatch.setattr(log_consumer._LogFetcher, "_parse_fetched_data", measured)
    records: list[Record] = []
    with caplog.at_level(logging.WARNING), closing(KafkaSource(small)) as source:
        assert start_at_beginning(source) is not None
        deadline = time.monotonic() + DEADLINE_S
        while len(records) < RECORDS and time.monotonic() < deadline:
            records += source.poll(0.2)
        assert source.caught_up()
    assert {event_pb2.Event.FromString(record.value or b"").event_id for record in records} == set(
        map(str, range(RECORDS))
    )
    assert len(records) == RECORDS
    for partition in range(3):
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == list(range(len(offsets)))
        assert len(offsets) * RECORD_BYTES > small.max_answer_bytes
    assert max(largest) <= small.max_answer_bytes + (16 << 10)
    lines = [record.message for record in caplog.records if LINE in record.message]
    # Apache Kafka keeps to what it is asked for, so nothing is shortened there.
    assert len(lines) == isinstance(broker, EmbeddedBroker)


def test_a_topic_is_read_from_its_begin(small: KafkaConfig) -> None:
    write(small, small.items_topic, item)
    batches = read_from_begin(small, {(small.items_topic, 0): RECORDS})
    keys = [record.key for records in batches for record in records]
    assert keys == [b"%d" % number for number in range(RECORDS)]


def test_the_dead_letters_are_read(small: KafkaConfig) -> None:
    value = bytes(RECORD_BYTES)
    rejected = [Record(small.events_topic, 0, number, 1000, None, value) for number in range(RECORDS)]
    letters = [Letter.of(Rejection(record, "it breaks a rule")) for record in rejected]
    with closing(KafkaProducer(**producer_settings(small) | {"batch_size": 8 << 10})) as producer:
        topic = small.dead_letters_topic
        sent = [producer.send(topic, value=one.value, headers=list(one.headers)) for one in letters]
        for future in sent:
            future.get(DEADLINE_S)
    written = WrittenLetters()
    read_written(written, small, threading.Event())
    assert len(written) == RECORDS
    with closing(LetterReader(small)) as reader:
        found = reader.newest(RECORDS, threading.Event())
    assert [letter.headers["offset"] for letter in found] == [str(number) for number in range(RECORDS)]
