from __future__ import annotations

import logging
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError
from kafka.future import Future as KafkaFuture
from kafka.producer.future import RecordMetadata
from ousel.v1 import catalog_pb2, event_pb2

from engine.config import KafkaConfig
from engine.events import producer as module
from engine.events.producer import EventProducer, ProducerFullError

EVENT = event_pb2.Event(user_id="u", item_id="i")


class FakeKafkaProducer:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.futures: list[KafkaFuture] = []
        self.refuse: Exception | None = None
        self.stuck = False

    def __call__(self, **_: Any) -> FakeKafkaProducer:
        return self

    def partitions_for(self, _: str) -> set[int]:
        return {0}

    def send(self, topic: str, key: bytes, value: bytes) -> KafkaFuture:
        if self.refuse:
            raise self.refuse
        self.sent.append((topic, key, value))
        self.futures.append(KafkaFuture())
        return self.futures[-1]

    def close(self, timeout: float) -> None:
        if self.stuck:
            raise KafkaTimeoutError("Timeout waiting for future")

    def acknowledge(self, number: int, offset: int) -> None:
        fields = dict.fromkeys(RecordMetadata._fields, None) | {"topic": "t", "partition": 3, "offset": offset}
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
    fake.refuse = ValueError("too large")
    producer = EventProducer(KafkaConfig(), max_pending=1)
    for _ in range(2):
        assert str(producer.send_event(EVENT).exception(0)) == "too large"


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
