from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import UnknownTopicOrPartitionError
from ousel.v1 import catalog_pb2, event_pb2

from deploy.local.brokers import Broker
from engine.config import KafkaConfig
from engine.events.batch import Record, Rejection
from engine.events.connection import connection_settings, wait_for_broker
from engine.events.dead_letter import MAX_VALUE_BYTES
from engine.events.kafka import KafkaSource
from engine.events.letter_writer import KafkaDeadLetters
from engine.events.producer import EventProducer
from engine.events.source import SourceError, start_at_beginning
from engine.events.topics import ensure_topics, topic_id

pytestmark = pytest.mark.integration

DEADLINE_S = 20.0


def drain(source: KafkaSource, count: int) -> list[Record]:
    """Polls until `count` records came, or fails at the deadline."""
    records: list[Record] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(records) < count and time.monotonic() < deadline:
        records += source.poll(0.2)
    assert len(records) == count
    return records


def poll_until(source: KafkaSource, condition: Callable[[], bool]) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < deadline:
        records += source.poll(0.05)
    assert condition()
    return records


def started(config: KafkaConfig) -> KafkaSource:
    """A source that reads everything."""
    source = KafkaSource(config)
    assert start_at_beginning(source) is not None
    return source


def wait_for_stable_offset(config: KafkaConfig, partition: TopicPartition, offset: int) -> None:
    """Returns once the partition's last stable offset is `offset` or more, or fails at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    consumer = KafkaConsumer(**connection_settings(config), isolation_level="read_committed")
    with closing(consumer):
        while (end := consumer.end_offsets([partition])[partition]) < offset:
            assert time.monotonic() < deadline, f"the last stable offset is {end} and not {offset}"


def track(config: KafkaConfig, count: int, users: int = 7) -> list[event_pb2.LogPosition]:
    with closing(EventProducer(config)) as producer:
        futures = [
            producer.send_event(event_pb2.Event(event_id=str(i), user_id=f"u{i % users}", item_id="i"))
            for i in range(count)
        ]
        return [future.result(DEADLINE_S) for future in futures]


@pytest.fixture
def source(kafka_config: KafkaConfig) -> Iterator[KafkaSource]:
    with closing(started(kafka_config)) as running:
        yield running


def test_sent_events_arrive_at_the_positions_that_were_answered(kafka_config: KafkaConfig) -> None:
    positions = track(kafka_config, 200)
    with closing(started(kafka_config)) as source:
        records = drain(source, 200)
    arrived = {(r.topic, r.partition, r.offset): event_pb2.Event.FromString(r.value or b"") for r in records}
    assert len(arrived) == 200
    for number, position in enumerate(positions):
        event = arrived[position.topic, position.partition, position.offset]
        assert (event.event_id, event.user_id) == (str(number), f"u{number % 7}")
    assert {r.topic for r in records} == {kafka_config.events_topic}
    assert len({r.partition for r in records}) > 1
    now_ms = time.time() * 1000
    assert all(now_ms - 60_000 < r.timestamp_ms < now_ms + 60_000 for r in records)


def test_events_are_keyed_by_user_or_else_session(kafka_config: KafkaConfig, source: KafkaSource) -> None:
    with closing(EventProducer(kafka_config)) as producer:
        producer.send_event(event_pb2.Event(user_id="u", session_id="s", item_id="i")).result(DEADLINE_S)
        producer.send_event(event_pb2.Event(session_id="s", item_id="i")).result(DEADLINE_S)
    assert {r.key for r in drain(source, 2)} == {b"u", b"s"}


def test_an_event_that_comes_while_polling_is_returned_at_once(kafka_config: KafkaConfig, source: KafkaSource) -> None:
    found: list[list[Record]] = []
    poller = threading.Thread(target=lambda: found.append(source.poll(10 * DEADLINE_S)))
    poller.start()
    track(kafka_config, 1)
    poller.join(DEADLINE_S)
    assert [len(records) for records in found] == [1]


def test_the_catalog_comes_before_the_history(kafka_config: KafkaConfig) -> None:
    track(kafka_config, 300)
    with closing(EventProducer(kafka_config)) as producer:
        for number in range(50):
            producer.send_item(catalog_pb2.Item(item_id=f"i{number}", title="t")).result(DEADLINE_S)
    config = kafka_config.model_copy(update={"max_poll_records": 16})
    with closing(started(config)) as source:
        records = drain(source, 350)
    assert [r.topic for r in records] == [config.items_topic] * 50 + [config.events_topic] * 300
    assert records[0].key == b"i0"


def test_a_full_queue_makes_polling_wait_and_loses_nothing(kafka_config: KafkaConfig) -> None:
    track(kafka_config, 500)
    config = kafka_config.model_copy(update={"queue_batches": 1, "max_poll_records": 3})
    with closing(started(config)) as source:
        offsets: dict[int, list[int]] = {}
        total = 0
        deadline = time.monotonic() + DEADLINE_S
        while total < 500 and time.monotonic() < deadline:
            records = source.poll(0.2)
            assert len(records) <= 3
            total += len(records)
            for record in records:
                offsets.setdefault(record.partition, []).append(record.offset)
    assert total == 500
    for found in offsets.values():
        assert found == list(range(len(found)))


def test_wake_ends_a_poll(source: KafkaSource) -> None:
    found: list[list[Record]] = []
    poller = threading.Thread(target=lambda: found.append(source.poll(10 * DEADLINE_S)))
    poller.start()
    source.wake()
    poller.join(DEADLINE_S)
    assert not poller.is_alive()
    assert found == [[]]


def test_lag_counts_what_poll_has_not_returned(kafka_config: KafkaConfig) -> None:
    track(kafka_config, 40)
    with closing(started(kafka_config)) as source:
        assert source.lag() == 40
        assert not source.caught_up()
        by_partition = source.lag_by_partition()
        assert set(by_partition) == {(kafka_config.events_topic, p) for p in range(3)} | {(kafka_config.items_topic, 0)}
        assert sum(by_partition.values()) == 40
        drain(source, 40)
        assert source.lag() == 0
        assert source.caught_up()
        # What comes later is lag again, and no reason to be behind the start.
        track(kafka_config, 5)
        poll_until(source, lambda: source.lag() == 0)
        assert source.caught_up()


def test_an_empty_log_is_caught_up(source: KafkaSource) -> None:
    assert source.caught_up()
    assert source.lag() == 0


def test_offsets_without_a_record_hold_nothing_up(kafka_config: KafkaConfig) -> None:
    # A transaction ends in a marker: an offset that no consumer ever sees.
    producer = KafkaProducer(**connection_settings(kafka_config), transactional_id=kafka_config.items_topic)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(kafka_config.items_topic, key=b"i", value=b"v")
    producer.commit_transaction()
    producer.close()
    # The coordinator writes the marker after it has answered, and the last stable offset moves only then.
    wait_for_stable_offset(kafka_config, TopicPartition(kafka_config.items_topic, 0), 2)
    with closing(started(kafka_config)) as source:
        assert source.lag() == 2
        records = poll_until(source, source.caught_up)
        assert [r.key for r in records] == [b"i"]
        assert source.lag() == 0


def test_a_missing_topic_is_named(kafka_config: KafkaConfig) -> None:
    with pytest.raises(SourceError, match="absent"):
        KafkaSource(kafka_config, topics=["absent"])


def test_close_twice_is_fine(kafka_config: KafkaConfig) -> None:
    source = KafkaSource(kafka_config)
    source.close()
    source.close()


def test_topics_are_created_once_and_then_left_alone(kafka_config: KafkaConfig) -> None:
    ensure_topics(kafka_config.model_copy(update={"events_partitions": 9}))
    consumer = KafkaConsumer(**connection_settings(kafka_config), enable_auto_commit=False)
    with closing(consumer):
        assert consumer.partitions_for_topic(kafka_config.events_topic) == {0, 1, 2}
        assert consumer.partitions_for_topic(kafka_config.items_topic) == {0}
        assert consumer.partitions_for_topic(kafka_config.dead_letters_topic) == {0}


def test_topics_may_be_created_by_several_at_once(kafka_config: KafkaConfig) -> None:
    names = {"events_topic": "race.e", "items_topic": "race.i", "dead_letters_topic": "race.d"}
    config = kafka_config.model_copy(update=names)
    errors: list[BaseException] = []

    def create() -> None:
        try:
            ensure_topics(config)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with closing(KafkaAdminClient(**connection_settings(kafka_config))) as admin:
        assert set(names.values()) <= set(admin.list_topics())


def test_dead_letters_carry_reason_and_position(kafka_config: KafkaConfig) -> None:
    small = Record("ousel.events", 2, 17, 0, b"key", b"\xff broken")
    large = Record("ousel.events", 0, 18, 0, None, b"x" * (MAX_VALUE_BYTES + 1))
    empty = Record("ousel.events", 0, 19, 0, None, None)
    letters = KafkaDeadLetters(kafka_config, max_letters=2)
    letters.publish([Rejection(small, "kind must be … got 'ü'"), Rejection(large, "r"), Rejection(empty, "r")])
    letters.close()
    assert (letters.published, letters.failed) == (3, 0)
    consumer = KafkaConsumer(**connection_settings(kafka_config), enable_auto_commit=False)
    with closing(consumer):
        partition = TopicPartition(kafka_config.dead_letters_topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        found = []
        deadline = time.monotonic() + DEADLINE_S
        while len(found) < 3 and time.monotonic() < deadline:
            found += consumer.poll(timeout_ms=100).get(partition, [])
    assert [r.value for r in found] == [b"\xff broken", b"x" * MAX_VALUE_BYTES, b""]
    assert [r.key for r in found] == [b"key", None, None]
    position = [("topic", b"ousel.events"), ("partition", b"2"), ("offset", b"17"), ("timestamp", b"0")]
    assert list(found[0].headers) == [("reason", "kind must be … got 'ü'".encode()), *position]
    assert dict(found[1].headers)["truncated"] == str(MAX_VALUE_BYTES + 1).encode()


def test_a_broker_that_answers_ends_the_wait_without_a_word(kafka_config: KafkaConfig) -> None:
    said: list[str] = []
    assert wait_for_broker(kafka_config, threading.Event(), said.append)
    assert said == []


def test_a_restarted_broker_is_read_on_from_where_it_stood(
    start: Callable[..., Broker], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start(tmp_path) as first:
        config = KafkaConfig(**first.client_settings(), request_timeout_ms=5000)
        ensure_topics(config)
        track(config, 20)
        source = started(config)
        drain(source, 20)
        first.stop()
        poll_until(source, lambda: "reading goes on" in caplog.text)
        with start(tmp_path, first.port):
            track(config, 10)
            records = drain(source, 10)
            poll_until(source, lambda: "again" in caplog.text)
            source.close()
    assert {event_pb2.Event.FromString(r.value or b"").event_id for r in records} == {str(i) for i in range(10)}
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("engine.events.")]
    # A broker that starts on a busy machine may be gone once more; each is said once.
    assert ["reading goes on" in line for line in ours] == [True, False] * (len(ours) // 2) + [True] * (len(ours) % 2)


def test_a_topic_made_anew_has_another_id_where_the_broker_gives_any(kafka_config: KafkaConfig) -> None:
    topic = kafka_config.events_topic
    first = topic_id(kafka_config, topic)
    assert topic_id(kafka_config, topic) == first
    with closing(KafkaAdminClient(**connection_settings(kafka_config))) as admin:
        admin.delete_topics([topic])
        deadline = time.monotonic() + DEADLINE_S
        while topic in admin.list_topics():
            assert time.monotonic() < deadline, f"{topic} is still there"
            time.sleep(0.05)
    ensure_topics(kafka_config)
    second = topic_id(kafka_config, topic)
    assert (first is None) == (second is None)
    assert first is None or first != second


def test_a_topic_that_does_not_exist_has_no_id(kafka_config: KafkaConfig) -> None:
    with pytest.raises(UnknownTopicOrPartitionError):
        topic_id(kafka_config, f"{kafka_config.events_topic}.no")
