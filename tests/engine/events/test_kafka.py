from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError, OffsetOutOfRangeError, TopicAuthorizationFailedError
from pydantic import SecretStr

from engine.config import KafkaConfig
from engine.events import kafka as module
from engine.events.batch import Record
from engine.events.kafka import KafkaSource, connection_settings, wait_for_broker
from engine.events.source import SourceError

DEADLINE_S = 20.0
PARTITION = TopicPartition("ousel.events", 0)


class Fetched(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None


class FakeConsumer:
    """One partition whose polls are scripted: so many records each, or an error to raise."""

    def __init__(self, script: list[int | Exception], end: int) -> None:
        self.script = list(script)
        self.end = end
        self.offset = 0
        self.exhausted = threading.Event()
        self.closed = False

    def __call__(self, **_: Any) -> FakeConsumer:
        return self

    def assign(self, _: Any) -> None: ...

    def seek(self, *_: Any) -> None: ...

    def pause(self, *_: Any) -> None: ...

    def partitions_for_topic(self, _: str) -> set[int]:
        return {0}

    def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.end)

    def position(self, _: TopicPartition, timeout_ms: int) -> int:
        return self.offset

    def highwater(self, _: TopicPartition) -> int:
        return self.end

    def metrics(self) -> dict[str, dict[str, float]]:
        return {"consumer-metrics": {"connection-count": 1.0}}

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Fetched]]:
        if not self.script:
            self.exhausted.set()
            return {}
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        first, self.offset = self.offset, self.offset + step
        return {PARTITION: [Fetched(*PARTITION, n, None, None, b"%d" % n) for n in range(first, self.offset)]}

    def close(self) -> None:
        self.closed = True


def source_of(
    monkeypatch: pytest.MonkeyPatch, *script: int | Exception, end: int = 0, **config: Any
) -> tuple[KafkaSource, FakeConsumer]:
    consumer = FakeConsumer(list(script), end)
    monkeypatch.setattr(module, "KafkaConsumer", consumer)
    return KafkaSource(KafkaConfig(**config), topics=[PARTITION.topic]), consumer


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
            # Two queued, one in the thread's hand, one returned since: never more than that ahead.
            assert consumer.offset <= len(found) + 4
            found += offsets(source.poll(DEADLINE_S))
    assert found == list(range(6))


def test_close_ends_a_thread_that_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(module, "KafkaConsumer", consumer)
    with pytest.raises(SourceError, match=r"localhost:1234 can't be read.*too slow"):
        KafkaSource(KafkaConfig(bootstrap="localhost:1234"))
    assert consumer.closed


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, and refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def wait(config: KafkaConfig, reports: int) -> list[str]:
    """Waits for a broker and stops at the given report."""
    stop, said = threading.Event(), []

    def report(line: str) -> None:
        said.append(line)
        if len(said) == reports:
            stop.set()

    assert not wait_for_broker(config, stop, report)
    return said


def test_an_absent_broker_is_reported_once_per_backoff_step(refused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "_MAX_BACKOFF_S", 0.05)
    said = wait(KafkaConfig(bootstrap=f"127.0.0.1:{refused_port},[::1]:{refused_port}"), reports=5)
    assert [line.rpartition("next try in ")[2] for line in said] == ["0.01 s", "0.02 s", "0.04 s", "0.05 s", "0.05 s"]
    for line in said:
        assert line.startswith(
            f"no Kafka broker at 127.0.0.1:{refused_port},[::1]:{refused_port}: check kafka.bootstrap"
        )
        assert "\n" not in line


def test_a_stop_before_the_first_try_ends_the_wait(refused_port: int) -> None:
    stop = threading.Event()
    stop.set()
    assert not wait_for_broker(KafkaConfig(bootstrap=f"127.0.0.1:{refused_port}"), stop, pytest.fail)


def test_a_source_without_a_broker_says_where_it_looked(refused_port: int) -> None:
    address = f"127.0.0.1:{refused_port}"
    with pytest.raises(SourceError, match=f"no Kafka broker answers at {address}"):
        KafkaSource(KafkaConfig(bootstrap=address, request_timeout_ms=100))


@pytest.mark.parametrize("address", ["nonsense", "localhost:port", "localhost:99999", "host.invalid:9092"])
def test_an_address_that_is_none_is_reported_like_an_absent_broker(address: str) -> None:
    (line,) = wait(KafkaConfig(bootstrap=address), reports=1)
    assert f"no Kafka broker at {address}: check kafka.bootstrap" in line


def test_a_port_that_does_not_speak_kafka_is_told_apart(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOTSTRAP_MS", 100)
    (line,) = wait(KafkaConfig(bootstrap=f"127.0.0.1:{silent_port}"), reports=1)
    assert f"127.0.0.1:{silent_port} accepts connections but does not answer as a Kafka broker" in line
    assert "whether the broker wants kafka.security_protocol" in line


def test_with_security_the_credentials_are_named(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOTSTRAP_MS", 100)
    (line,) = wait(secured(f"127.0.0.1:{silent_port}"), reports=1)
    for setting in (
        "security_protocol=SASL_PLAINTEXT",
        "sasl_mechanism",
        "sasl_username",
        "sasl_password",
        "ssl_cafile",
    ):
        assert f"kafka.{setting}" in line
    assert "secret" not in line


def test_tries_that_fail_leave_no_thread_behind(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOTSTRAP_MS", 50)
    monkeypatch.setattr(module, "_FIRST_BACKOFF_S", 0.0)
    before = threading.active_count()
    wait(KafkaConfig(bootstrap=f"127.0.0.1:{silent_port}"), reports=3)
    assert threading.active_count() <= before


def secured(bootstrap: str) -> KafkaConfig:
    return KafkaConfig(
        bootstrap=bootstrap,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="user",
        sasl_password=SecretStr("secret"),
    )


def test_settings_hold_every_address_and_the_credentials() -> None:
    settings = connection_settings(secured("a:1,b:2"))
    assert settings["bootstrap_servers"] == ["a:1", "b:2"]
    assert settings["security_protocol"] == "SASL_PLAINTEXT"
    names = ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
    assert [settings[name] for name in names] == ["PLAIN", "user", "secret"]
