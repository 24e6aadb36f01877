"""The models' topic at a real broker: made where it is missing, read from its begin, followed, and begun anew."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from kafka.admin import KafkaAdminClient

from engine.config import KafkaConfig, RegistryConfig, models_topic
from engine.events.connection import connection_settings
from engine.events.topic_state import describe_topics
from engine.registry.errors import RegistryError
from engine.registry.following import LedgerReader
from engine.registry.ledger import Ledger, model_record, withdrawal_record
from engine.registry.topic import KafkaModelsTopic
from tests.engine.registry.test_ledger import model
from tests.integration.engines import DEADLINE_S, until

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(kafka_config: KafkaConfig) -> KafkaModelsTopic:
    return KafkaModelsTopic(kafka_config, models_topic(RegistryConfig(), kafka_config))


@contextmanager
def reading(topic: KafkaModelsTopic) -> Iterator[LedgerReader]:
    reader = LedgerReader(topic)
    reader.start()
    try:
        yield reader
    finally:
        reader.stop()


def ledger(reader: LedgerReader) -> Ledger:
    until(lambda: reader.ledger is not None, lambda: reader.problem)
    assert reader.ledger is not None
    return reader.ledger


def test_it_is_made_with_one_partition_and_compacted(topic: KafkaModelsTopic, kafka_config: KafkaConfig) -> None:
    with reading(topic) as reader:
        assert ledger(reader) == Ledger()
    with closing(KafkaAdminClient(**connection_settings(kafka_config))) as admin:
        state = describe_topics(admin, [topic.name])[topic.name]
    assert state is not None and state.partitions == 1
    assert state.compacted or not state.settings  # The embedded broker does not tell settings.


def test_what_is_written_is_read_by_all_and_by_one_that_begins_later(topic: KafkaModelsTopic) -> None:
    with reading(topic) as first:
        ledger(first)
        read = first.read_through(topic.write([model_record(model(1), 0)]), DEADLINE_S)
        assert [one.model.version for one in read.models] == [1]
        offset = topic.write([model_record(model(2), 1), withdrawal_record(2, "why", "a", 1)])
        read = first.read_through(offset, DEADLINE_S)
        with reading(topic) as second:
            until(lambda: second.ledger == read, lambda: second.ledger)
            offset = topic.write([("model/none", None)])
            assert second.read_through(offset, DEADLINE_S) == first.read_through(offset, DEADLINE_S) == read


def test_a_topic_of_several_partitions_is_refused_by_name(kafka_config: KafkaConfig) -> None:
    name = f"models.{uuid.uuid4().hex}"
    with closing(KafkaAdminClient(**connection_settings(kafka_config))) as admin:
        admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1}})
        admin.wait_for_topics([name])
    with pytest.raises(RegistryError, match=f"registry.topic '{name}' must have 1 partition, .*, got 3"):
        next(KafkaModelsTopic(kafka_config, name).read(threading.Event()))


def test_a_broker_that_is_away_is_a_problem_that_names_the_topic(kafka_config: KafkaConfig) -> None:
    away = kafka_config.model_copy(update={"bootstrap": "127.0.0.1:1", "request_timeout_ms": 500})
    topic = KafkaModelsTopic(away, "models")
    with pytest.raises(RegistryError, match=r"registry\.topic 'models' does not take records: "):
        topic.write([("a", b"{}")])
    with reading(topic) as reader:
        until(lambda: reader.problem, lambda: reader.ledger)
        assert "registry.topic 'models' can't be read: " in reader.problem
