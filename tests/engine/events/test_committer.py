from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError, KafkaConnectionError

from engine.events import committer as module
from engine.events.committer import Committer

ONE, TWO = TopicPartition("t", 1), TopicPartition("t", 2)


class FakeConsumer:
    """Keeps commits, and answers when the test says so."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, int]] = []
        self.callback: Callable[[Any, Any], None] | None = None
        self.polls = 0
        self.closed = False

    def commit_async(
        self, offsets: dict[TopicPartition, OffsetAndMetadata], callback: Callable[[Any, Any], None]
    ) -> None:
        self.commits.append({partition: offset.offset for partition, offset in offsets.items()})
        self.callback = callback

    def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata], timeout_ms: int) -> None:
        self.commits.append({partition: offset.offset for partition, offset in offsets.items()})

    def poll(self) -> None:
        self.polls += 1

    def answer(self, error: Exception | None = None) -> None:
        assert self.callback is not None
        self.callback({}, error)

    def close(self, timeout_ms: int) -> None:
        self.closed = True


@pytest.fixture
def consumer() -> FakeConsumer:
    return FakeConsumer()


@pytest.fixture
def committer(consumer: FakeConsumer, monkeypatch: pytest.MonkeyPatch) -> Committer:
    monkeypatch.setattr(module, "_RETRY_S", 0.0)
    return Committer("group", lambda: consumer, drive=True)


def test_the_newest_positions_are_sent_one_request_at_a_time(committer: Committer, consumer: FakeConsumer) -> None:
    committer.send()
    assert consumer.commits == []
    committer.note({ONE: 1, TWO: 2})
    committer.note({ONE: 3})
    committer.send()
    committer.note({ONE: 4})
    committer.send()
    assert consumer.commits == [{ONE: 3, TWO: 2}]
    assert consumer.polls == 1  # nobody else would fetch the answer
    consumer.answer()
    committer.send()
    assert consumer.commits[1:] == [{ONE: 4}]


def test_a_failure_is_said_once_each_way_and_tried_again(
    committer: Committer, consumer: FakeConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    committer.note({ONE: 1, TWO: 1})
    for _ in range(3):
        committer.send()
        consumer.answer(KafkaConnectionError("gone"))
    committer.note({ONE: 5})
    committer.send()
    consumer.answer()
    committer.send()
    assert consumer.commits == [{ONE: 1, TWO: 1}] * 3 + [{ONE: 5, TWO: 1}]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "positions can't be committed to group group",
        "positions are committed to group group again",
    ]


def test_no_consumer_is_a_failure_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    def absent() -> FakeConsumer:
        raise KafkaConnectionError("no broker")

    committer = Committer("group", absent, drive=True)
    committer.note({ONE: 1})
    committer.send()
    committer.send()
    committer.close()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("when", ["waiting", "sent"])
def test_what_is_forgotten_is_not_sent_again(committer: Committer, consumer: FakeConsumer, when: str) -> None:
    committer.note({ONE: 1})
    if when == "sent":
        committer.send()
    committer.forget()
    if when == "sent":
        consumer.answer(CommitFailedError())
    committer.send()
    assert consumer.commits == ([{ONE: 1}] if when == "sent" else [])


def test_closing_sends_what_is_left(committer: Committer, consumer: FakeConsumer) -> None:
    committer.note({ONE: 1, TWO: 1})
    committer.send()
    committer.note({ONE: 2})
    committer.close()
    assert consumer.commits == [{ONE: 1, TWO: 1}, {ONE: 2, TWO: 1}]
    assert consumer.closed
    committer.close()
    assert len(consumer.commits) == 2
