"""A topic is read once from its begin, beside the source that follows it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaConnectionError

from engine.config import KafkaConfig
from engine.events import topic_reader
from engine.events.source import BrokerAway, SourceError
from engine.events.topic_reader import read_from_begin
from tests.engine.events.test_kafka import Fetched

PARTITIONS = [TopicPartition("ousel.items", number) for number in range(2)]
CONFIG = KafkaConfig(share=True, request_timeout_ms=1000)


class FakeConsumer:
    """Two partitions that begin at 3; a poll returns one record of each that flows, or nothing where it is silent."""

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}
        self.at = dict.fromkeys(PARTITIONS, 0)
        self.flowing = set(PARTITIONS)
        self.holds: dict[TopicPartition, str] = {}
        self.silent = False
        self.closed = False

    def open(self, _kind: object, settings: dict[str, object]) -> FakeConsumer:
        self.settings = settings
        return self

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        assert list(partitions) == PARTITIONS

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 3)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.at[partition] = offset

    def position(self, partition: TopicPartition, timeout_ms: int) -> int:
        return self.at[partition]

    def pause(self, *partitions: TopicPartition) -> None:
        self.flowing -= set(partitions)

    def held(self) -> dict[TopicPartition, str]:
        return self.holds

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Fetched]]:
        if self.silent:
            return {}
        found = {at: [Fetched(*at, self.at[at], None, b"key", b"value")] for at in PARTITIONS if at in self.flowing}
        for partition in found:
            self.at[partition] += 1
        return found

    def close(self, timeout_ms: int) -> None:
        self.closed = True


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> FakeConsumer:
    fake = FakeConsumer()
    monkeypatch.setattr(topic_reader, "open_client", fake.open)
    return fake


def read(ends: Sequence[int]) -> list[tuple[int, int]]:
    batches = read_from_begin(CONFIG, {tuple(at): end for at, end in zip(PARTITIONS, ends, strict=True)})
    return [(record.partition, record.offset) for batch in batches for record in batch]


def test_every_partition_is_read_from_its_begin_to_its_end_and_no_group_is_joined(consumer: FakeConsumer) -> None:
    assert sorted(read([5, 7])) == [(0, 3), (0, 4), (1, 3), (1, 4), (1, 5), (1, 6)]
    assert consumer.closed and "group_id" not in consumer.settings


def test_a_partition_that_ends_before_its_begin_is_not_waited_for(consumer: FakeConsumer) -> None:
    assert read([0, 4]) == [(1, 3)]


def test_a_partition_that_cannot_be_read_ends_it_with_the_reason(consumer: FakeConsumer) -> None:
    consumer.holds = {PARTITIONS[1]: "its codec is not installed"}
    with pytest.raises(SourceError, match=r"ousel.items\[1\] can't be read: its codec is not installed"):
        read([5, 5])
    assert consumer.closed


def test_a_broker_that_falls_silent_ends_it(consumer: FakeConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer.silent = True
    clock = iter(range(100))
    monkeypatch.setattr(topic_reader.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(BrokerAway, match="no record came"):
        read([5, 5])
    assert consumer.closed


def test_a_broker_that_is_away_is_said_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KafkaConnectionError("no node")

    monkeypatch.setattr(topic_reader, "open_client", fail)
    with pytest.raises(BrokerAway, match="does not let read"):
        read([5, 5])
