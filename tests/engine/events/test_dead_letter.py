from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError
from kafka.future import Future as KafkaFuture

from engine.config import KafkaConfig
from engine.events import producer as module
from engine.events.batch import Record, Rejection
from engine.events.dead_letter import KafkaDeadLetters, MemoryDeadLetters

REJECTION = Rejection(Record("ousel.events", 2, 17, 0, b"k", b"v"), "no item")


class FakeKafkaProducer:
    """Refuses, fails or acknowledges every record at once."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome

    def __call__(self, **_: Any) -> FakeKafkaProducer:
        return self

    def partitions_for(self, _: str) -> set[int]:
        return {0}

    def send(self, *_: Any, **__: Any) -> KafkaFuture:
        if self.outcome == "refuse":
            raise KafkaTimeoutError("no metadata")
        future = KafkaFuture()
        return future.failure(KafkaTimeoutError("late")) if self.outcome == "fail" else future.success(None)


@pytest.mark.parametrize(("outcome", "said"), [("refuse", "no metadata"), ("fail", "late")])
def test_a_dead_letter_that_is_lost_is_counted_and_logged_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, outcome: str, said: str
) -> None:
    monkeypatch.setattr(module, "KafkaProducer", FakeKafkaProducer(outcome))
    letters = KafkaDeadLetters(KafkaConfig(), max_pending=1)
    with caplog.at_level(logging.ERROR):
        letters.publish([REJECTION] * 3)
    assert (letters.published, letters.failed) == (0, 3)
    assert len(caplog.records) == 3
    message = caplog.records[0].getMessage()
    assert "ousel.events[2]@17" in message
    assert "no item" in message
    assert said in message


def test_acknowledged_dead_letters_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KafkaProducer", FakeKafkaProducer("acknowledge"))
    letters = KafkaDeadLetters(KafkaConfig(), max_pending=1)
    letters.publish([REJECTION] * 3)
    assert (letters.published, letters.failed) == (3, 0)


class Unanswering(FakeKafkaProducer):
    """Acknowledges the oldest record only when it is asked to."""

    def __init__(self) -> None:
        super().__init__("hold")
        self.open: list[KafkaFuture] = []
        self.most_open = 0

    def send(self, *_: Any, **__: Any) -> KafkaFuture:
        self.open.append(KafkaFuture())
        self.most_open = max(self.most_open, len(self.open))
        return self.open[-1]

    def acknowledge(self) -> None:
        self.open.pop(0).success(None)


def test_publishing_waits_for_an_answer_where_as_many_are_on_their_way_as_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer = Unanswering()

    class Room(threading.BoundedSemaphore):
        """The broker answers once, and only if somebody waits for it."""

        def acquire(self, *_: Any, **__: Any) -> bool:
            if not super().acquire(blocking=False):
                producer.acknowledge()
                assert super().acquire(blocking=False)
            return True

    monkeypatch.setattr(module, "KafkaProducer", producer)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "BoundedSemaphore", Room)
        letters = KafkaDeadLetters(KafkaConfig(), max_pending=3)
    letters.publish([REJECTION] * 10)
    assert (producer.most_open, letters.published) == (3, 7)
    while producer.open:
        producer.acknowledge()
    assert (letters.published, letters.failed) == (10, 0)


def test_memory_keeps_what_it_is_given() -> None:
    letters = MemoryDeadLetters()
    letters.publish([REJECTION])
    letters.publish([])
    assert letters.rejections == [REJECTION]
