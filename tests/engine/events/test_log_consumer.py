"""The seam with kafka-python: its fetcher, with our view of one partition, over answers that a test makes up."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.consumer.subscription_state import SubscriptionState
from kafka.errors import CorruptRecordError, UnknownError

from engine.events import held_partitions
from engine.events.log_consumer import _LogFetcher
from engine.events.partition_reader import FetchedRecord, ReadLimits
from tests.engine.events.batches import batch_of

EMPTY_FETCH_MS = 20
ONE, TWO = TopicPartition("t", 1), TopicPartition("t", 2)


class Answers:
    """A fetcher whose answers a test puts in, in place of the network."""

    def __init__(self, max_poll_bytes: int = 1 << 20) -> None:
        self.subscription = SubscriptionState("none")
        self.subscription.assign_from_user([ONE, TWO])
        for partition in (ONE, TWO):
            self.subscription.seek(partition, 0)
        cluster = SimpleNamespace(request_update=lambda: None)
        client: Any = SimpleNamespace(_manager=SimpleNamespace(_net=None, cluster=cluster), shortened_answers=0)
        self.fetcher = _LogFetcher(
            client,
            self.subscription,
            max_poll_bytes,
            ReadLimits(1 << 20),
            EMPTY_FETCH_MS,
            isolation_level="read_committed",
        )

    def put(self, partition: TopicPartition, data: bytes | None, *, error: int = 0, stable: int = -1) -> None:
        """The broker's answer to a fetch from where the partition stands."""
        self.fetcher._completed_fetches.append(
            SimpleNamespace(
                topic_partition=partition,
                fetched_offset=self.position(partition),
                response_version=12,
                metric_aggregator=None,
                partition_data=SimpleNamespace(
                    error_code=error,
                    records=data,
                    high_watermark=1000,
                    last_stable_offset=stable,
                    aborted_transactions=None,
                    diverging_epoch=None,
                    preferred_read_replica=-1,
                    current_leader=None,
                ),
            )
        )

    def poll(self, max_records: int = 100) -> dict[TopicPartition, list[FetchedRecord]]:
        return self.fetcher.fetched_records(max_records)[0]

    def position(self, partition: TopicPartition) -> int:
        offset: int = self.subscription.assignment[partition].position.offset
        return offset

    def fetchable(self) -> set[TopicPartition]:
        return set(self.fetcher._fetchable_partitions())


def values(records: list[FetchedRecord]) -> list[bytes | None]:
    return [record.value for record in records]


def test_a_poll_ends_at_its_bytes_and_the_next_goes_on() -> None:
    answers = Answers(max_poll_bytes=1000)
    answers.put(ONE, bytes(batch_of([(None, bytes(400))] * 7, "gzip")))
    answers.put(TWO, bytes(batch_of([(None, b"two")])))
    polls = []
    while found := answers.poll():
        polls.append({partition: len(records) for partition, records in found.items()})
    assert polls == [{ONE: 3}, {ONE: 3}, {ONE: 1, TWO: 1}]
    assert (answers.position(ONE), answers.position(TWO)) == (7, 1)


def test_a_poll_ends_at_its_records() -> None:
    answers = Answers()
    answers.put(ONE, bytes(batch_of([(None, b"%d" % n) for n in range(5)])))
    assert values(answers.poll(3)[ONE]) == [b"0", b"1", b"2"]
    assert answers.position(ONE) == 3
    assert values(answers.poll(3)[ONE]) == [b"3", b"4"]


def test_a_partition_with_something_unreadable_is_held_while_another_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = Answers()
    for _ in range(3):
        answers.put(ONE, b"\xff" * 80)
        answers.put(TWO, bytes(batch_of([(None, b"two")], base_offset=answers.position(TWO))))
        assert list(answers.poll()) == [TWO]
    assert list(answers.fetcher.holds.reasons()) == [ONE]
    assert answers.fetchable() == {TWO}
    assert [record.message.partition(":")[0] for record in caplog.records] == ["t[1] can't be read on from offset 0"]
    # Its next try is due, and fails again, without another line.
    now_s = held_partitions.monotonic()
    monkeypatch.setattr(held_partitions, "monotonic", lambda: now_s + 11)
    assert answers.fetchable() == {ONE, TWO}
    answers.put(ONE, b"\xff" * 80)
    assert answers.poll() == {}
    assert (answers.fetchable(), len(caplog.records)) == ({TWO}, 1)
    # And then succeeds.
    monkeypatch.setattr(held_partitions, "monotonic", lambda: now_s + 22)
    answers.put(ONE, bytes(batch_of([(None, b"one")])))
    assert values(answers.poll()[ONE]) == [b"one"]
    assert answers.fetcher.holds.reasons() == {}
    assert caplog.records[-1].message == "t[1] is read on from offset 0"


@pytest.mark.parametrize("error", [CorruptRecordError, UnknownError])
def test_a_broker_that_cannot_read_its_own_log_holds_the_partition(error: type[Exception]) -> None:
    answers = Answers()
    answers.put(ONE, None, error=error.errno)  # type: ignore[attr-defined]
    assert answers.poll() == {}
    assert "the broker answers" in answers.fetcher.holds.reasons()[ONE]
    assert answers.fetchable() == {TWO}


def test_a_partition_that_is_sought_elsewhere_is_held_no_more() -> None:
    answers = Answers()
    answers.put(ONE, None, error=CorruptRecordError.errno)
    answers.poll()
    answers.subscription.seek(ONE, 5)
    assert answers.fetchable() == {ONE, TWO}
    assert answers.fetcher.holds.reasons() == {}


def test_the_end_that_counts_is_the_last_stable_offset() -> None:
    answers = Answers()
    answers.put(ONE, b"", stable=41)
    answers.put(TWO, None)  # a broker that does not say
    answers.poll()
    assert answers.fetcher.last_stable_offsets == {ONE: 41}


def test_answers_to_what_was_asked_before_a_seek_are_dropped() -> None:
    answers = Answers()
    answers.put(ONE, bytes(batch_of([(None, b"old")])))
    answers.subscription.seek(ONE, 9)
    assert answers.poll() == {}
    assert answers.position(ONE) == 9


class Asked(Answers):
    """A broker that holds no fetch: each is answered at once, and is counted."""

    def __init__(self, data: bytes | None) -> None:
        super().__init__()
        self.fetches = 0
        self.data = data
        manager = SimpleNamespace(run=lambda _: self._answer(), wait_for=None)
        self.fetcher._manager, self.fetcher._net = manager, SimpleNamespace(run=lambda *_: None)

    def _answer(self) -> None:
        self.fetches += 1
        self.put(ONE, self.data)
        self.fetcher._fetch_futures = [SimpleNamespace(is_done=True, add_both=lambda _: None)]


def test_a_broker_that_holds_no_fetch_is_asked_again_only_after_a_pause():
    asked, began_s = Asked(None), time.monotonic()
    for _ in range(5):
        records, idle = asked.fetcher.fetch_records(100, timeout_ms=1000)
        assert not records
        assert not idle
    assert asked.fetches <= 5
    assert time.monotonic() - began_s >= 0.99 * 5 * EMPTY_FETCH_MS / 1000


def test_a_poll_without_patience_is_not_paused(monkeypatch):
    paused = []
    monkeypatch.setattr(
        "engine.events.log_consumer.time", SimpleNamespace(sleep=paused.append, monotonic=time.monotonic)
    )
    Asked(None).fetcher.fetch_records(100, timeout_ms=0)
    assert paused == [0]


def test_no_pause_follows_an_answer_with_records(monkeypatch):
    paused = []
    monkeypatch.setattr(
        "engine.events.log_consumer.time", SimpleNamespace(sleep=paused.append, monotonic=time.monotonic)
    )
    records, _ = Asked(batch_of([(None, b"a")])).fetcher.fetch_records(100, timeout_ms=1000)
    assert [record.value for record in records[ONE]] == [b"a"]
    assert not paused
