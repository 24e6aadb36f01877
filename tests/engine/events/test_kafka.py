from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.errors import (
    KafkaTimeoutError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from engine.config import KafkaConfig
from engine.events import kafka as module
from engine.events.batch import Flaw, Record
from engine.events.kafka import KafkaSource
from engine.events.source import Assignment, LogIdentity, LogRange, SourceError, start_at_beginning

DEADLINE_S = 20.0
Step = int | Exception | Callable[[], object]
PARTITION = TopicPartition("ousel.events", 0)


class Fetched(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    flaw: Flaw | None = None


class FakeConsumer:
    """One partition whose polls are scripted: so many records each, an error to raise, or something to call first."""

    def __init__(self, script: list[Step], end: int, value_bytes: int = 0) -> None:
        self.value_bytes = value_bytes
        self.script = list(script)
        self.end = end
        self.offset = 0
        self.flowing = True
        self.polls_while_paused = 0
        self.listener: ConsumerRebalanceListener | None = None
        self.exhausted = threading.Event()
        self._nothing = threading.Event()  # never set
        self.closed = False
        self.partitions = 1
        self.holds: dict[TopicPartition, str] = {}

    def __call__(self, **_: Any) -> FakeConsumer:
        return self

    def assign(self, _: Any) -> None: ...

    def subscribe(self, _: Any, listener: ConsumerRebalanceListener) -> None:
        self.listener = listener

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.offset = offset

    def take_traced(self) -> dict[Any, str]:
        return {}

    def pause(self, *partitions: TopicPartition) -> None:
        self.flowing = self.flowing and not partitions

    def resume(self, *partitions: TopicPartition) -> None:
        self.flowing = self.flowing or bool(partitions)

    def partitions_for_topic(self, _: str) -> set[int]:
        return set(range(self.partitions))

    def identity(self, topics: Sequence[str]) -> LogIdentity:
        return LogIdentity("cluster", dict.fromkeys(topics, "id"))

    def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.end)

    def position(self, _: TopicPartition, timeout_ms: int) -> int:
        return self.offset

    def last_stable_offset(self, _: TopicPartition) -> int:
        return self.end

    def held(self) -> dict[TopicPartition, str]:
        return self.holds

    def metrics(self) -> dict[str, dict[str, float]]:
        return {"consumer-metrics": {"connection-count": 1.0}}

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Fetched]]:
        if not self.script:
            self.exhausted.set()
            self._nothing.wait(min(timeout_ms, 1) / 1000)
            return {}
        if callable(self.script[0]):
            self.script.pop(0)()
            return {}
        if not self.flowing:
            self.polls_while_paused += 1
            return {}
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        first, self.offset = self.offset, self.offset + step
        return {
            PARTITION: [
                Fetched(*PARTITION, n, None, None, (b"%d" % n).ljust(self.value_bytes))
                for n in range(first, self.offset)
            ]
        }

    def close(self, timeout_ms: int = 0) -> None:
        self.closed = True


class FakeWatch:
    """Topics that stay as they are, until a test says otherwise."""

    def __init__(self, *_: object) -> None:
        self.failure: str | None = None
        self.problems: frozenset[str] = frozenset()
        self.news: str | None = None  # for a reader that asks

    def explain(self) -> str | None:
        return self.news

    def close(self) -> None: ...


def source_of(
    monkeypatch: pytest.MonkeyPatch,
    *script: Step,
    end: int = 0,
    started: bool = True,
    value_bytes: int = 0,
    **config: Any,
) -> tuple[KafkaSource, FakeConsumer]:
    consumer = FakeConsumer(list(script), end, value_bytes)
    monkeypatch.setattr(module, "LogConsumer", consumer)
    monkeypatch.setattr(module, "TopicWatch", FakeWatch)
    source = KafkaSource(KafkaConfig(**config), topics=[PARTITION.topic])
    if started:
        assert start_at_beginning(source) is not None
    return source, consumer


def offsets(records: list[Record]) -> list[int]:
    return [record.offset for record in records]


def test_queued_batches_are_merged_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, 3, 2, 4, 1, end=10, max_poll_records=5)
    with closing(source):
        # A poll of Kafka comes after all before it are queued.
        assert consumer.exhausted.wait(DEADLINE_S)
        assert offsets(source.poll(0)) == [0, 1, 2, 3, 4]
        assert not source.caught_up()
        assert source.lag() == 5
        assert offsets(source.poll(0)) == [5, 6, 7, 8, 9]
        assert source.caught_up()
        assert source.poll(0) == []
    assert consumer.closed


def test_a_full_queue_makes_polling_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, *[1] * 6, queue_batches=2, max_poll_records=1)
    with closing(source):
        found = []
        while len(found) < 6:
            # Two queued, one returned since: never more than that ahead.
            assert consumer.offset <= len(found) + 3
            found += offsets(source.poll(DEADLINE_S))
    assert found == list(range(6))


def test_a_queue_that_is_full_by_bytes_makes_polling_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 64 << 10
    source, consumer = source_of(monkeypatch, *[1] * 9, value_bytes=size, queue_batches=2, max_poll_bytes=size)
    with closing(source):
        found = []
        while len(found) < 9:
            assert consumer.offset <= len(found) + 3
            batch = source.poll(DEADLINE_S)
            assert len(batch) == 1  # two of them exceed a full batch
            found += offsets(batch)
    assert found == list(range(9))


def test_a_held_partition_keeps_no_other_from_being_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, 2, end=9)
    with closing(source):
        assert offsets(source.poll(DEADLINE_S)) == [0, 1]
        assert not source.caught_up()
        consumer.holds = {PARTITION: "its codec is missing"}
        eventually(source.held)
        assert source.held() == {tuple(PARTITION): "its codec is missing"}
        assert source.caught_up()
        assert source.lag() == 7
        consumer.holds = {}
        consumer.script = [7]
        assert offsets(source.poll(DEADLINE_S)) == list(range(2, 9))
        eventually(lambda: not source.held())
        assert source.caught_up()


def test_the_lag_of_a_held_partition_grows_with_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, 2, end=9)
    with closing(source):
        assert offsets(source.poll(DEADLINE_S)) == [0, 1]
        consumer.holds = {PARTITION: "its codec is missing"}
        eventually(source.held)
        consumer.end = 500  # as the next try to read it has shown
        eventually(lambda: source.lag() == 498)
        assert source.stable_offsets() == {tuple(PARTITION): 500}


def test_close_ends_a_thread_while_the_queue_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, 1, 1, 1, queue_batches=1, max_poll_records=1)
    closer = threading.Thread(target=source.close)
    closer.start()
    closer.join(DEADLINE_S)
    assert not closer.is_alive()
    assert consumer.closed


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OffsetOutOfRangeError({PARTITION: 1}), "no longer holds the records that come next"),
        (TopicAuthorizationFailedError({"ousel.events"}), "TopicAuthorizationFailed"),
        (RuntimeError("broken"), "broken"),
    ],
)
def test_an_error_that_stays_is_raised_after_the_records_before_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    source, _ = source_of(monkeypatch, 1, error, 1)
    with closing(source):
        assert offsets(source.poll(DEADLINE_S)) == [0]
        for _ in range(2):
            with pytest.raises(SourceError, match=said):
                source.poll(DEADLINE_S)


def test_an_error_that_passes_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, 1, KafkaTimeoutError("slow"), 1)
    with closing(source):
        assert consumer.exhausted.wait(DEADLINE_S)
        assert offsets(source.poll(0)) == [0, 1]


def test_a_record_without_a_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = source_of(monkeypatch, 1)
    with closing(source):
        assert source.poll(DEADLINE_S) == [Record("ousel.events", 0, 0, -1, None, b"0")]


def test_topics_that_cannot_be_listed_are_a_source_error(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = FakeConsumer([], 0)

    def fail(_: object) -> None:
        raise KafkaTimeoutError("too slow")

    monkeypatch.setattr(consumer, "end_offsets", fail)
    monkeypatch.setattr(module, "LogConsumer", consumer)
    with pytest.raises(SourceError, match=r"localhost:1234 can't be read.*too slow"):
        KafkaSource(KafkaConfig(bootstrap="localhost:1234", request_timeout_ms=100))
    assert consumer.closed


def eventually(condition: Callable[[], object]) -> None:
    tick, deadline = threading.Event(), time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        tick.wait(0.001)


def test_a_full_queue_does_not_silence_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # The group would give the partitions of a silent member to another.
    monkeypatch.setattr(module, "_ROOM_S", 0.001)
    source, consumer = source_of(monkeypatch, 1, 1, 1, queue_batches=1, max_poll_records=1)
    with closing(source):
        eventually(lambda: consumer.offset == 1)  # it also polls before the start, and reads nothing then
        before = consumer.polls_while_paused
        eventually(lambda: consumer.polls_while_paused >= before + 3)
        assert consumer.offset == 1
        assert offsets(source.poll(0)) == [0]
        assert offsets(source.poll(DEADLINE_S)) == [1]


def test_nothing_is_read_before_the_start_but_the_thread_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, 3, end=3, started=False)
    with closing(source):
        identity = LogIdentity("cluster", {PARTITION.topic: "id"})
        assert source.assignment() == Assignment({tuple(PARTITION): LogRange(0, 3)}, {PARTITION.topic: 1}, identity)
        assert source.assignment() is source.assignment()
        eventually(lambda: consumer.polls_while_paused >= 3)
        assert source.poll(0) == []
        assert (source.lag(), source.caught_up()) == (3, False)
        source.start({tuple(PARTITION): 0})
        assert offsets(source.poll(DEADLINE_S)) == [0, 1, 2]


def test_a_start_goes_where_it_is_told_and_drops_what_was_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, 2, end=9)
    with closing(source):
        assert consumer.exhausted.wait(DEADLINE_S)
        source.start({tuple(PARTITION): 7, ("not assigned", 0): 99})
        assert source.lag() == 2
        assert source.poll(0) == []
        eventually(lambda: consumer.offset == 7)
        consumer.script = [2]
        assert offsets(source.poll(DEADLINE_S)) == [7, 8]
        assert source.caught_up()


@pytest.mark.parametrize("offset", [-1, 10])
def test_a_start_outside_the_log_names_partition_offset_and_range(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    source, _ = source_of(monkeypatch, end=9, started=False)
    with closing(source):
        source.assignment()
        with pytest.raises(SourceError, match=rf"ousel\.events\[0\] holds offsets 0 to 9, .* from {offset}:"):
            source.start({tuple(PARTITION): offset})


def test_each_deal_of_the_group_is_a_new_assignment_that_waits_for_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, end=5, started=False, share=True)
    listener = consumer.listener
    assert listener is not None
    with closing(source):
        assert source.assignment() is None
        consumer.script = [lambda: listener.on_partitions_assigned([PARTITION])]
        eventually(source.assignment)
        first = source.assignment()
        source.start({tuple(PARTITION): 3})
        consumer.script = [2]
        eventually(lambda: source._queue)
        # The same partition is taken back and dealt out again: what was read ahead is dropped all the same.
        consumer.script = [
            lambda: listener.on_partitions_revoked([PARTITION]),
            lambda: listener.on_partitions_assigned([PARTITION]),
        ]
        eventually(lambda: not consumer.script)
        eventually(source.assignment)
        second = source.assignment()
        assert second is not first
        consumer.script = [1]
        eventually(lambda: consumer.polls_while_paused)
        assert source.poll(0) == []
        assert not source.caught_up()
        source.start({tuple(PARTITION): 4})
        assert offsets(source.poll(DEADLINE_S)) == [4]


@pytest.mark.parametrize("change", ["on_partitions_revoked", "on_partitions_lost"])
def test_partitions_that_are_taken_back_are_read_no_more(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    source, consumer = source_of(monkeypatch, end=5, started=False, share=True)
    listener = consumer.listener
    assert listener is not None
    with closing(source):
        consumer.script = [lambda: listener.on_partitions_assigned([PARTITION])]
        eventually(source.assignment)
        source.start({})
        consumer.script = [lambda: getattr(listener, change)([PARTITION])]
        eventually(lambda: source.assignment() is None)
        assert source.lag_by_partition() == {}
        source.start({})  # nothing to start
        assert source.poll(0) == []
        assert not source.caught_up()


def test_a_start_that_comes_too_late_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, end=5, started=False, share=True)
    listener = consumer.listener
    assert listener is not None
    with closing(source):
        consumer.script = [lambda: listener.on_partitions_assigned([PARTITION])]
        eventually(source.assignment)
        consumer.script = [
            lambda: listener.on_partitions_revoked([PARTITION]),
            lambda: listener.on_partitions_assigned([PARTITION]),
            2,
        ]
        eventually(lambda: consumer.polls_while_paused)
        source.start({tuple(PARTITION): 99})  # an error, were it for the assignment of now
        assert source.poll(0) == []
        assert source.assignment() is not None
        source.start({})
        assert offsets(source.poll(DEADLINE_S)) == [0, 1]
