"""Dead letters against a producer that refuses, fails and answers on cue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from kafka.errors import (
    InvalidRecordError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
)

from engine import metrics
from engine.config import KafkaConfig
from engine.events import letter_queue
from engine.events import letter_writer as module
from engine.events.batch import Record, Rejection
from engine.events.dead_letter import Letter, LettersUnwritten
from engine.events.letter_writer import KafkaDeadLetters
from engine.events.letters_written import WrittenLetters
from engine.limited_log import LimitedLog

CONFIG = KafkaConfig(request_timeout_ms=1000)
DEADLINE_S = 30.0


def rejection(offset: int, partition: int = 0, value: bytes = b"v", key: bytes | None = b"k") -> Rejection:
    return Rejection(Record("ousel.events", partition, offset, 1000 + offset, key, value), f"reason {offset}")


Answer = Callable[[bytes | None, bytes], Exception | None]


class Sent:
    """A letter on its way; kafka-python's future of it."""

    def __init__(self, producer: FakeProducer, key: bytes | None, value: bytes, headers: dict[str, bytes]) -> None:
        self.producer, self.key, self.value, self.headers = producer, key, value, headers
        self.answered = False
        self.error: Exception | None = None

    def get(self, timeout: float) -> None:
        self.producer.deliver()
        assert self.answered
        if self.error is not None:
            raise self.error


class FakeProducer:
    """A topic in memory: it answers as `answer` says for each letter, and keeps the letters that it takes."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.answer: Answer = lambda key, value: None
        self.open = True  # Otherwise letters stay without an answer until it is.
        self.taken: list[tuple[int, bytes | None, bytes, dict[str, bytes]]] = []
        self.tries = 0
        self.batch: list[Sent] = []

    def send(self, _: str, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]) -> Sent:
        self.batch.append(Sent(self, key, value, dict(headers)))
        return self.batch[-1]

    def deliver(self) -> None:
        """Answers for all letters that were sent since the last time; they travelled together."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.open, DEADLINE_S)
            for sent in self.batch:
                self.tries += 1
                sent.error, sent.answered = self.answer(sent.key, sent.value), True
                if sent.error is None:
                    self.taken.append((int(sent.headers["offset"]), sent.key, sent.value, sent.headers))
            self.batch = []
            self.changed.notify_all()

    def set(self, *, open: bool | None = None, answer: Answer | None = None) -> None:
        with self.changed:
            self.open = self.open if open is None else open
            self.answer = answer or self.answer
            self.changed.notify_all()

    def until(self, true: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(true, DEADLINE_S)

    @property
    def offsets(self) -> list[int]:
        return [offset for offset, *_ in self.taken]

    def close(self, timeout: float) -> None:
        pass


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> FakeProducer:
    fake = FakeProducer()
    monkeypatch.setattr(module, "open_producer", lambda *_: fake)
    monkeypatch.setattr(module, "_FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(module, "_MAX_BACKOFF_S", 0.001)
    for one in (module, letter_queue):
        monkeypatch.setattr(one, "limited", LimitedLog(module.log, schedule=lambda *_: None))
    return fake


@contextmanager
def writer(**settings: Any) -> Iterator[KafkaDeadLetters]:
    settings = {"read": lambda *_: None} | settings
    with closing(KafkaDeadLetters(CONFIG, **settings)) as letters:
        yield letters


def settle(letters: KafkaDeadLetters) -> None:
    """Settles as a later snapshot does, once the topic takes letters again."""
    deadline_s, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while time.monotonic() < deadline_s:
        with suppress(LettersUnwritten):
            letters.settle()
            return
        pause.wait(0.01)
    letters.settle()


def refuse(_: bytes | None, __: bytes) -> Exception:
    return KafkaTimeoutError("the topic is away")


def test_the_number_of_letters_that_wait_is_told_while_nobody_can_change_it(
    producer: FakeProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float, bool]] = []
    with writer() as letters:
        changed = letters._queue._changed
        monkeypatch.setattr(
            metrics.DEAD_LETTERS_PENDING, "set", lambda number: told.append((number, changed._is_owned()))
        )
        letters.publish([rejection(at) for at in range(3)])
        settle(letters)
    assert {owned for _, owned in told} == {True}
    assert told[-1][0] == 0  # Another thread's older number must not be the last.


def test_letters_are_written_in_order_and_settling_waits_for_them(producer: FakeProducer) -> None:
    with writer() as letters:
        letters.publish([rejection(at) for at in range(1000)])
        settle(letters)
        assert producer.offsets == list(range(1000))
        assert (letters.published, letters.failed) == (1000, 0)


def test_refused_letters_are_written_once_the_topic_takes_them(
    producer: FakeProducer, caplog: pytest.LogCaptureFixture
) -> None:
    producer.set(answer=refuse)
    with writer() as letters:
        letters.publish([rejection(at) for at in range(20)])
        producer.until(lambda: producer.tries > 60)
        with pytest.raises(LettersUnwritten, match=r"20 dead letters can't be written .*the topic is away"):
            letters.settle()
        assert letters.failed >= 40
        producer.set(answer=lambda *_: None)
        producer.until(lambda: len(producer.taken) == 20)
        settle(letters)
    assert producer.offsets == list(range(20))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, said
    assert "20 dead letters wait for topic 'ousel.dead-letters', which does not take them (KafkaTimeout" in said[0]
    assert said[1] == "dead letters are written to topic 'ousel.dead-letters' again"


def test_one_letter_that_fails_holds_its_place_and_no_other_up(producer: FakeProducer) -> None:
    producer.set(answer=lambda _, value: KafkaTimeoutError("late") if value == b"bad" else None)
    with writer() as letters:
        letters.publish([rejection(0), rejection(1, value=b"bad"), rejection(2)])
        producer.until(lambda: producer.tries > 5)
        assert sorted(producer.offsets) == [0, 2]
        with pytest.raises(LettersUnwritten):
            letters.settle()
        producer.set(answer=lambda *_: None)
        producer.until(lambda: len(producer.taken) == 3)
        settle(letters)
    assert sorted(producer.offsets) == [0, 1, 2]


def test_a_letter_that_is_too_large_is_written_without_its_value_and_others_keep_theirs(
    producer: FakeProducer,
) -> None:
    def limit(*_: object) -> Exception | None:
        size = sum(len(sent.value) for sent in producer.batch)  # of the letters that travel together
        return MessageSizeTooLargeError("too large") if size > 100 else None

    producer.set(answer=limit)
    with writer() as letters:
        letters.publish([rejection(0), rejection(1, value=b"x" * 70_000), rejection(2)])
        settle(letters)
    taken = {offset: (key, value, headers) for offset, key, value, headers in producer.taken}
    assert {offset: value for offset, (_, value, _) in taken.items()} == {0: b"v", 1: b"", 2: b"v"}
    assert taken[1][2]["left_out"] == b"value"
    assert taken[1][2]["truncated"] == b"70000"
    assert "left_out" not in taken[0][2] and "left_out" not in taken[2][2]


def test_a_batch_that_is_too_large_as_a_whole_is_sent_one_by_one_and_no_letter_loses_its_value(
    producer: FakeProducer,
) -> None:
    producer.set(
        answer=lambda *_: MessageSizeTooLargeError("the batch is too large") if len(producer.batch) > 1 else None,
        open=False,
    )
    with writer() as letters:
        letters.publish([rejection(at) for at in range(5)])
        producer.set(open=True)
        settle(letters)
    assert producer.offsets == list(range(5))
    assert all((value, "left_out" in headers) == (b"v", False) for _, _, value, headers in producer.taken)


def test_a_topic_that_wants_keys_gets_a_letter_without_one_under_its_position(producer: FakeProducer) -> None:
    producer.set(answer=lambda key, _: InvalidRecordError("null key") if key is None else None)
    with writer() as letters:
        letters.publish([rejection(3, key=None)])
        settle(letters)
    ((_, key, _, headers),) = producer.taken
    assert key == b"ousel.events-0-3" and headers["reason"] == b"reason 3"


@pytest.mark.parametrize("limits", [{"max_letters": 3}, {"max_bytes": 3 * Letter.of(rejection(0)).size_bytes}])
def test_beyond_the_bound_the_stream_goes_on_and_no_snapshot_passes_the_letters_that_were_not_kept(
    producer: FakeProducer, limits: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    producer.set(answer=refuse)
    with writer(**limits) as letters:
        letters.publish([rejection(at) for at in range(3)])
        producer.until(lambda: producer.tries > 3)
        letters.publish([rejection(at) for at in range(3, 50)])  # returns though nothing is written
        producer.set(answer=lambda *_: None)
        producer.until(lambda: len(producer.taken) == 3)
        letters.publish([rejection(50)])  # there would be room, but letters before it were not kept
        with pytest.raises(LettersUnwritten, match=r"from ousel.events\[0\]@3 on found no room .*restart the engine"):
            letters.settle()
        assert producer.offsets == [0, 1, 2]
        assert any("no room for ousel.events[0]@3" in record.getMessage() for record in caplog.records)
        # The log is read again, as a restart or a new assignment does.
        letters.publish([rejection(at) for at in range(2, 51)])
        settle(letters)
    assert producer.offsets == list(range(51))


def test_partitions_are_held_apart(producer: FakeProducer) -> None:
    producer.set(answer=refuse)
    with writer(max_letters=1) as letters:
        letters.publish([rejection(0, partition=0)])
        producer.until(lambda: producer.tries > 1)
        letters.publish([rejection(7, partition=1)])
        producer.set(answer=lambda *_: None)
        producer.until(lambda: len(producer.taken) == 1)
        letters.publish([rejection(1, partition=0)])
        producer.until(lambda: len(producer.taken) == 2)
        with pytest.raises(LettersUnwritten, match=r"ousel.events\[1\]@7"):
            letters.settle()
    assert producer.offsets == [0, 1]


def test_publishing_waits_for_room_while_letters_are_being_written(producer: FakeProducer) -> None:
    producer.set(open=False)
    with writer(max_letters=2) as letters:
        thread = threading.Thread(target=letters.publish, args=([rejection(at) for at in range(50)],))
        thread.start()
        producer.set(open=True)
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        settle(letters)
    assert producer.offsets == list(range(50))


def test_letters_that_the_topic_has_already_are_not_written_again(producer: FakeProducer) -> None:
    def read(written: WrittenLetters, *_: object) -> None:
        for at in range(10):
            written.add(Letter.of(rejection(at)).id)

    with writer(read=read) as letters:
        letters.publish([rejection(at) for at in range(12)])
        letters.publish([rejection(at) for at in range(12)])  # a partition that is replayed while the engine runs
        settle(letters)
        assert (letters.published, letters.repeated) == (2, 22)
    assert producer.offsets == [10, 11]


def test_a_letter_whose_answer_was_lost_is_looked_for_before_it_is_written_again(producer: FakeProducer) -> None:
    reads = 0

    def lost_answer(_: bytes | None, __: bytes) -> Exception | None:
        return KafkaTimeoutError("no answer") if producer.tries == 1 else None

    def read(written: WrittenLetters, *_: object) -> None:
        nonlocal reads
        reads += 1
        if reads == 2:
            written.add(Letter.of(rejection(0)).id)  # it had arrived all the same

    producer.set(answer=lost_answer)
    with writer(read=read) as letters:
        letters.publish([rejection(0)])
        producer.until(lambda: producer.tries == 1)
        letters.publish([rejection(1)])
        producer.until(lambda: producer.offsets == [1])
        settle(letters)
        assert reads == 2
    assert producer.offsets == [1]


def test_a_topic_that_may_not_be_read_is_written_to_all_the_same(
    producer: FakeProducer, caplog: pytest.LogCaptureFixture
) -> None:
    def read(*_: object) -> None:
        raise TopicAuthorizationFailedError("no right to read")

    with writer(read=read) as letters:
        letters.publish([rejection(0)])
        settle(letters)
    assert producer.offsets == [0]
    assert "dead letters that it has may be written again" in caplog.text


def test_closing_says_how_many_letters_are_left_and_does_not_wait_for_a_topic_that_is_away(
    producer: FakeProducer, caplog: pytest.LogCaptureFixture
) -> None:
    producer.set(answer=refuse)
    with caplog.at_level(logging.ERROR), writer() as letters:
        letters.publish([rejection(0), rejection(1)])
        producer.until(lambda: producer.tries > 2)
        letters.close()
        letters.close()
    assert [m for m in caplog.messages if m.startswith("2 dead letters are not written to topic")]
