from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)
from kafka.future import Future as KafkaFuture
from kafka.producer.future import RecordMetadata
from ousel.v1 import catalog_pb2, event_pb2
from ousel.v1.privacy_service_pb2 import Subject
from prometheus_client import REGISTRY

from engine.config import Config, KafkaConfig
from engine.events import producer as module
from engine.events.producer import EventProducer, ProducerFullError, RecordTooLargeError
from engine.serving.errors import LogUnavailable
from engine.serving.event_writer import EventWriter

EVENT = event_pb2.Event(user_id="u", item_id="i")


class FakeKafkaProducer:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.asked: list[int | None] = []  # the partition of each, None where the key decides
        self.partitions = {0}
        self.away: set[int | None] = set()  # partitions that refuse at once
        self.futures: list[KafkaFuture] = []
        self.refuse: Exception | None = None
        self.stuck = False
        self.config: dict[str, int] = {}

    def __call__(self, **_: Any) -> FakeKafkaProducer:
        return self

    def partitions_for(self, _: str) -> set[int]:
        return self.partitions

    def send(
        self, topic: str, key: bytes, value: bytes, headers: object = None, partition: int | None = None
    ) -> KafkaFuture:
        if self.refuse and (not self.away or partition in self.away):
            raise self.refuse
        self.asked.append(partition)
        self.sent.append((topic, key, value))
        self.futures.append(KafkaFuture())
        return self.futures[-1]

    def close(self, timeout: float) -> None:
        if self.stuck:
            raise KafkaTimeoutError("Timeout waiting for future")

    def acknowledge(self, number: int, offset: int) -> None:
        fields = dict.fromkeys(RecordMetadata._fields, None) | {"topic": "t", "partition": 3, "offset": offset}
        if self.asked[number] is not None:
            fields["partition"] = self.asked[number]
        self.futures[number].success(RecordMetadata(**fields))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeKafkaProducer:
    fake = FakeKafkaProducer()
    monkeypatch.setattr(module, "KafkaProducer", fake)
    return fake


def test_a_future_resolves_to_the_position_once_acknowledged(fake: FakeKafkaProducer) -> None:
    future = EventProducer(KafkaConfig()).send_event(EVENT)
    assert not future.done()
    fake.acknowledge(0, 17)
    assert future.result(0) == event_pb2.LogPosition(topic="t", partition=3, offset=17)


def test_records_are_keyed_by_user_then_session_then_item(fake: FakeKafkaProducer) -> None:
    producer = EventProducer(KafkaConfig())
    known = event_pb2.Event(user_id="u", session_id="s", item_id="i")
    anonymous = event_pb2.Event(session_id="s", item_id="i")
    knowledge = event_pb2.Event(item_id="i", entity_id="x")
    item = catalog_pb2.Item(item_id="i", title="t")
    producer.send_event(known)
    producer.send_event(anonymous)
    producer.send_event(knowledge)
    producer.send_item(item)
    assert fake.sent == [
        ("ousel.events", b"u", known.SerializeToString()),
        ("ousel.events", b"s", anonymous.SerializeToString()),
        ("ousel.events", b"i", knowledge.SerializeToString()),
        ("ousel.items", b"i", item.SerializeToString()),
    ]


def test_a_delivery_that_fails_is_the_futures_exception(fake: FakeKafkaProducer) -> None:
    future = EventProducer(KafkaConfig()).send_event(EVENT)
    fake.futures[0].failure(KafkaTimeoutError("late"))
    assert isinstance(future.exception(0), KafkaTimeoutError)


def test_a_refused_send_is_the_futures_exception(fake: FakeKafkaProducer) -> None:
    fake.refuse = ValueError("closed")
    producer = EventProducer(KafkaConfig(), max_pending=1)
    for _ in range(2):
        assert str(producer.send_event(EVENT).exception(0)) == "closed"


@pytest.mark.parametrize("error", [MessageSizeTooLargeError, RecordListTooLargeError])
@pytest.mark.parametrize("by", ["producer", "broker"])
def test_a_record_that_is_too_large_is_told_from_one_that_may_be_sent_again(
    fake: FakeKafkaProducer, error: type[Exception], by: str
) -> None:
    producer = EventProducer(KafkaConfig())
    if by == "producer":
        fake.refuse = error("4 MB")
    future = producer.send_event(EVENT)
    if by == "broker":
        fake.futures[0].failure(error("4 MB"))
    with pytest.raises(RecordTooLargeError, match=r"of \d+ bytes, more than topic 'ousel.events' takes"):
        future.result(0)


def test_a_topic_that_is_gone_fails_a_send_at_once(fake: FakeKafkaProducer) -> None:
    """The event loop sends: a wait for a topic that somebody has deleted would stop every call."""
    producer = EventProducer(KafkaConfig())
    assert fake.config["max_block_ms"] == 0
    fake.refuse = KafkaTimeoutError("Failed to update metadata after 0.0 secs.")
    with pytest.raises(UnknownTopicOrPartitionError, match=r"no partitions of topic 'ousel\.events'"):
        producer.send_event(EVENT).result(0)


def waiting() -> tuple[float | None, float | None]:
    names = ("ousel_writes_waiting", "ousel_writes_waiting_bytes")
    return REGISTRY.get_sample_value(names[0]), REGISTRY.get_sample_value(names[1])


def test_pending_records_are_bounded_by_their_bytes_too(fake: FakeKafkaProducer) -> None:
    producer = EventProducer(KafkaConfig(max_pending_bytes=2**20))
    large = event_pb2.Event(user_id="u", item_id="i", attributes={"a": "x" * 400_000})
    size = large.ByteSize()
    sent = [producer.send_event(large) for _ in range(3)]
    assert [future.done() for future in sent] == [False, False, True]
    assert isinstance(sent[2].exception(0), ProducerFullError)
    assert "kafka.max_pending_bytes=1048576" in str(sent[2].exception(0))
    assert not producer.send_event(EVENT).done()  # There is still room for a small one.
    assert waiting() == (3, 2 * size + EVENT.ByteSize())
    fake.acknowledge(0, 0)
    fake.futures[1].failure(KafkaTimeoutError())
    assert not producer.send_event(large).done()
    fake.acknowledge(2, 1)
    fake.acknowledge(3, 2)
    assert waiting() == (0, 0)


def test_a_single_record_may_always_wait_however_large(fake: FakeKafkaProducer) -> None:
    huge = event_pb2.Event(user_id="u", item_id="i", attributes={"a": "x" * 2**21})
    assert not EventProducer(KafkaConfig(max_pending_bytes=2**20)).send_event(huge).done()


FORGET = event_pb2.Event(event_id="f", user_id="u", session_id="s", forget=True)


def test_an_event_that_forgets_goes_to_every_partition_in_order(fake: FakeKafkaProducer) -> None:
    fake.partitions = {2, 0, 1}
    futures = EventProducer(KafkaConfig()).send_forget(FORGET)
    assert fake.sent == [("ousel.events", b"u", FORGET.SerializeToString())] * 3
    assert fake.asked == [0, 1, 2]
    for number, offset in ((2, 5), (0, 9), (1, 0)):
        assert not futures[number].done()
        fake.acknowledge(number, offset)
    assert [(future.result(0).partition, future.result(0).offset) for future in futures] == [(0, 9), (1, 0), (2, 5)]


def test_an_anonymous_session_that_is_forgotten_is_the_key(fake: FakeKafkaProducer) -> None:
    EventProducer(KafkaConfig()).send_forget(event_pb2.Event(session_id="s", forget=True))
    assert [key for _, key, _ in fake.sent] == [b"s"]


def test_other_events_leave_the_partition_to_the_key(fake: FakeKafkaProducer) -> None:
    fake.partitions = {0, 1}
    EventProducer(KafkaConfig()).send_event(EVENT)
    assert fake.asked == [None]


async def forgotten(producer: EventProducer, acknowledge: Callable[[], None]) -> list[event_pb2.LogPosition]:
    """What PrivacyService gets of it."""
    writing = asyncio.ensure_future(EventWriter(producer, Config()).forget([Subject(user_id="u")]))
    await asyncio.sleep(0)  # until the records are handed over
    acknowledge()
    return await writing


@pytest.mark.parametrize("at_once", [False, True])
async def test_one_partition_that_fails_fails_the_whole_and_says_why(fake: FakeKafkaProducer, at_once: bool) -> None:
    fake.partitions = {0, 1, 2}
    late = KafkaConnectionError("partition 1 has no leader")
    if at_once:
        fake.refuse, fake.away = late, {1}
    producer = EventProducer(KafkaConfig(), max_pending=3)

    def answer() -> None:
        assert fake.asked == ([0, 2] if at_once else [0, 1, 2])  # the others get their record all the same
        for number, partition in enumerate(fake.asked):
            if partition == 1:
                fake.futures[number].failure(late)
            else:
                fake.acknowledge(number, 4)

    with pytest.raises(LogUnavailable, match=r"the records that forget could not be .*partition 1 has no leader"):
        await forgotten(producer, answer)
    fake.refuse = None
    assert not any(future.done() for future in producer.send_forget(FORGET))  # none of the three still counts


async def test_when_every_partition_has_it_the_positions_of_all_are_returned(fake: FakeKafkaProducer) -> None:
    fake.partitions = {0, 1}

    def answer() -> None:
        for at in (0, 1):
            fake.acknowledge(at, 7)

    positions = await forgotten(EventProducer(KafkaConfig()), answer)
    assert [(position.partition, position.offset) for position in positions] == [(0, 7), (1, 7)]


def test_pending_records_are_bounded(fake: FakeKafkaProducer) -> None:
    producer = EventProducer(KafkaConfig(), max_pending=2)
    producer.send_event(EVENT)
    producer.send_event(EVENT)
    assert isinstance(producer.send_event(EVENT).exception(0), ProducerFullError)
    fake.acknowledge(0, 0)
    fake.futures[1].failure(KafkaTimeoutError())
    for _ in range(2):
        assert not producer.send_event(EVENT).done()
    assert len(fake.sent) == 4


def test_a_cancel_does_not_lose_the_acknowledgement(fake: FakeKafkaProducer) -> None:
    future = EventProducer(KafkaConfig()).send_event(EVENT)
    assert not future.cancel()
    fake.acknowledge(0, 1)
    assert future.result(0).offset == 1


@pytest.mark.parametrize("stuck", [False, True])
def test_close_never_raises(fake: FakeKafkaProducer, caplog: pytest.LogCaptureFixture, stuck: bool) -> None:
    fake.stuck = stuck
    with caplog.at_level(logging.ERROR):
        EventProducer(KafkaConfig()).close()
    assert ("closed while records were on their way" in caplog.text) == stuck
