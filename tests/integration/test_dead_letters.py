"""Dead letters on a real broker: written once over restarts, and shown by the command."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from deploy.local.brokers import Broker
from engine.config import KafkaConfig
from engine.events.batch import Record, Rejection
from engine.events.connection import connection_settings
from engine.events.dead_letter import Letter, letter_id
from engine.events.letter_writer import KafkaDeadLetters
from engine.events.letters_written import WrittenLetters, read_written
from tests.integration.engines import DEADLINE_S, load, running, until


def rejection(offset: int, partition: int = 0, timestamp_ms: int = 1000) -> Rejection:
    record = Record("ousel.events", partition, offset, timestamp_ms, b"k", b"v%d" % offset)
    return Rejection(record, f"reason {offset}")


def written(config: KafkaConfig) -> list[int]:
    """The offsets that the letters of the topic name, in its order."""
    with closing(KafkaConsumer(**connection_settings(config), enable_auto_commit=False)) as consumer:
        partition = TopicPartition(config.dead_letters_topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        (end,) = consumer.end_offsets([partition]).values()
        found: list[int] = []
        while consumer.position(partition) < end:
            for record in consumer.poll(timeout_ms=100).get(partition, []):
                known = letter_id(record.headers)
                assert known is not None
                found.append(known.offset)
        return found


def test_a_restart_that_decodes_the_same_records_again_writes_no_letter_twice(kafka_config: KafkaConfig) -> None:
    with closing(KafkaDeadLetters(kafka_config)) as letters:
        letters.publish([rejection(at) for at in range(0, 40, 2)])
        letters.settle()
        assert (letters.published, letters.repeated) == (20, 0)
    with closing(KafkaDeadLetters(kafka_config)) as letters:
        letters.publish([rejection(at) for at in range(0, 50, 2)])
        letters.settle()
        assert (letters.published, letters.repeated) == (5, 20)
    # A topic that was deleted and made again has the same offsets at other times.
    with closing(KafkaDeadLetters(kafka_config)) as letters:
        letters.publish([rejection(at, timestamp_ms=2000) for at in range(0, 50, 2)])
        letters.settle()
        assert (letters.published, letters.repeated) == (25, 0)
    assert written(kafka_config) == [*range(0, 50, 2), *range(0, 50, 2)]


def test_reading_goes_on_behind_the_letters_that_are_known(kafka_config: KafkaConfig) -> None:
    known = WrittenLetters()
    read_written(known, kafka_config, threading.Event())
    assert len(known) == 0
    with closing(KafkaDeadLetters(kafka_config)) as letters:
        letters.publish([rejection(at) for at in range(3)])
    read_written(known, kafka_config, threading.Event())
    assert all(Letter.of(rejection(at)).id in known for at in range(3))
    assert sum(known.ends.values()) == 3


def test_letters_are_written_once_a_topic_that_was_deleted_is_there_again(kafka_config: KafkaConfig) -> None:
    quick = kafka_config.model_copy(update={"request_timeout_ms": 500})
    with (
        closing(KafkaAdminClient(**connection_settings(kafka_config))) as admin,
        closing(KafkaDeadLetters(quick)) as letters,
    ):
        admin.delete_topics([kafka_config.dead_letters_topic])
        until(lambda: kafka_config.dead_letters_topic not in admin.list_topics())
        letters.publish([rejection(at) for at in range(5)])
        until(lambda: letters.failed)
        admin.create_topics({kafka_config.dead_letters_topic: {"num_partitions": 1, "replication_factor": 1}})
        until(lambda: letters.published == 5)
        letters.settle()
    assert written(kafka_config) == list(range(5))


def show(config: KafkaConfig, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as an operator does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUSEL_")}
    given = config.model_dump(exclude_unset=True, exclude_none=True)
    if config.sasl_password is not None:
        given["sasl_password"] = config.sasl_password.get_secret_value()
    environment |= {f"OUSEL_KAFKA__{name.upper()}": str(value) for name, value in given.items()}
    command = [sys.executable, "-m", "engine", "dead-letters", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)


def test_the_command_shows_the_newest_letters_the_newest_last(kafka_config: KafkaConfig) -> None:
    nothing = show(kafka_config)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no dead letters in topic" in nothing.stderr
    hostile = Record("ousel.items", 0, 9, 5, "schlüssel".encode(), b"\x1b[31mred\n\xff" + b"x" * 70_000)
    with closing(KafkaDeadLetters(kafka_config)) as letters:
        letters.publish([rejection(at) for at in range(30)])
        letters.publish([Rejection(hostile, "item_id must not be empty,\ngot ''")])
    shown = show(kafka_config, "--limit", "2")
    assert shown.returncode == 0, shown.stderr
    first, first_value, last, last_value = shown.stdout.splitlines()
    assert first.endswith("  ousel.events[0]@29  reason 29") and first_value == "    key k  value v29"
    assert last.endswith(r"  ousel.items[0]@9  item_id must not be empty,\ngot ''")
    assert last_value.startswith(r"    key schlüssel  value \x1b[31mred\n\xffxxx") and len(last_value) < 350
    assert last_value.endswith("xxx... (70010 bytes in all)")
    assert len(show(kafka_config).stdout.splitlines()) == 2 * 20
    *_, before, newest = map(json.loads, show(kafka_config, "--json", "--limit", "50").stdout.splitlines())
    assert (before["topic"], before["partition"], before["offset"], before["reason"]) == (
        "ousel.events",
        0,
        29,
        "reason 29",
    )
    assert (before["key"], before["value"], before["timestamp"]) == ("k", "v29", 1000)
    assert base64.b64decode(newest["value_base64"]).startswith(b"\x1b[31mred") and newest["truncated"] == 70_010


def test_the_command_says_in_one_line_why_it_can_show_nothing(kafka_config: KafkaConfig) -> None:
    away = show(kafka_config.model_copy(update={"dead_letters_topic": "absent"}))
    assert away.returncode == 1
    assert away.stderr.startswith("ousel-engine dead-letters: topic 'absent' does not exist at ")
    away = show(kafka_config.model_copy(update={"bootstrap": "127.0.0.1:1", "request_timeout_ms": 1000}))
    assert (away.returncode, away.stderr.count("\n")) == (1, 1)
    assert "ousel-engine dead-letters: no Kafka broker at 127.0.0.1:1: check kafka.bootstrap" in away.stderr


def test_the_command_follows_the_letters_that_come(kafka_config: KafkaConfig) -> None:
    environment = os.environ | {
        "OUSEL_KAFKA__BOOTSTRAP": kafka_config.bootstrap,
        "OUSEL_KAFKA__DEAD_LETTERS_TOPIC": kafka_config.dead_letters_topic,
    }
    if kafka_config.security_protocol != "PLAINTEXT":
        pytest.skip("the settings of the connection are those of the other tests")
    command = [sys.executable, "-m", "engine", "dead-letters", "--follow", "--json"]
    with closing(KafkaDeadLetters(kafka_config)) as letters:
        letters.publish([rejection(0)])
        letters.settle()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        limit = threading.Timer(DEADLINE_S, process.kill)
        limit.start()
        try:
            assert process.stdout is not None and process.stderr is not None
            assert json.loads(process.stdout.readline())["offset"] == 0
            letters.publish([rejection(1)])
            assert json.loads(process.stdout.readline())["offset"] == 1
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 0
            assert process.stderr.read() == ""
        finally:
            limit.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()


def scraped(port: int) -> Counter[tuple[str, str]]:
    """The counts of `ousel_records` by topic and outcome; "polled" is what the log has handed over."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S).read().decode()
    counts: Counter[tuple[str, str]] = Counter()
    for outcome, topic, value in re.findall(
        r'^ousel_records_total\{outcome="(\w+)",topic="(.*?)"\} (\S+)$', text, re.M
    ):
        counts[topic, outcome] = int(float(value))
    for topic, value in re.findall(r'^ousel_records_polled_total\{topic="(.*?)"\} (\S+)$', text, re.M):
        counts[topic, "polled"] = int(float(value))
    return counts


def test_an_engine_that_is_killed_and_has_no_snapshots_writes_each_letter_once_and_counts_every_record(
    kafka_config: KafkaConfig, tmp_path: Path
) -> None:
    load(kafka_config)
    with closing(KafkaProducer(**connection_settings(kafka_config))) as producer:
        for at in range(25):
            producer.send(kafka_config.events_topic, value=b"\xff%d" % at, partition=at % 3)
        producer.send(kafka_config.items_topic, key=b"k", value=b"{")
        producer.flush(DEADLINE_S)
    for run in ("first", "second"):
        with running(kafka_config, tmp_path / f"{run}.log") as engine:
            until(lambda: len(written(kafka_config)) == 26, engine.log)
            counts = scraped(engine.metrics_port)
            events, items = kafka_config.events_topic, kafka_config.items_topic
            assert (counts[events, "event"], counts[events, "dead_letter"], counts[events, "polled"]) == (200, 25, 225)
            assert (counts[items, "item"], counts[items, "dead_letter"], counts[items, "polled"]) == (40, 1, 41)
            engine.line(r"record \S+\[\d\]@\d+ is a dead letter \(`ousel-engine dead-letters`\): payload must be")
            engine.kill()
    # Whatever the second engine wrote before it was killed was there already.
    with running(kafka_config, tmp_path / "third.log") as engine:
        engine.line("is a dead letter")
        assert engine.stop() == 0
    assert len(written(kafka_config)) == 26


def test_a_letter_that_is_too_large_for_the_topic_is_written_without_its_value(
    kafka_config: KafkaConfig, broker: Broker
) -> None:
    if broker.name == "the embedded broker":
        pytest.skip("the embedded broker has no max.message.bytes")
    config = kafka_config.model_copy(update={"dead_letters_topic": f"{kafka_config.dead_letters_topic}.small"})
    with closing(KafkaAdminClient(**connection_settings(config))) as admin:
        configs = {"max.message.bytes": "2000", "cleanup.policy": "compact"}
        topic = {"num_partitions": 1, "replication_factor": 1, "configs": configs}
        admin.create_topics({config.dead_letters_topic: topic})
    large = Record("ousel.events", 0, 7, 1, b"k", b"x" * 50_000)
    keyless = Record("ousel.events", 0, 9, 1, None, b"v")
    with closing(KafkaDeadLetters(config)) as letters:
        letters.publish([rejection(6), Rejection(large, "r"), rejection(8), Rejection(keyless, "r")])
        until(lambda: letters.published == 4)
        letters.settle()
    assert sorted(written(config)) == [6, 7, 8, 9]
    shown = show(config, "--json").stdout.splitlines()
    letter = {one["offset"]: one for one in map(json.loads, shown)}
    assert (letter[7]["value"], letter[7]["left_out"], letter[7]["truncated"]) == ("", "value", 50_000)
    assert (letter[6]["value"], letter[8]["value"]) == ("v6", "v8")
    assert (letter[9]["key"], letter[9]["left_out"]) == ("ousel.events-0-9", "value, key")
