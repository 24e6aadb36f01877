"""`ousel-engine check` against a real broker: what it finds, and that it changes nothing there."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from engine.checks.finding import Level
from engine.checks.running import Line, run_checks
from engine.checks.table import CHECKS
from engine.config import Config, KafkaConfig, ServingConfig, SnapshotConfig
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings

pytestmark = pytest.mark.integration


def lines_of(kafka: KafkaConfig, folder: Path) -> list[Line]:
    config = Config(
        kafka=kafka, snapshot=SnapshotConfig(dir=folder / "none"), serving=ServingConfig(port=0, metrics_port=0)
    )
    return list(run_checks(CHECKS, config))


def at_the_broker(kafka: KafkaConfig) -> tuple[set[str], set[str]]:
    """The topics and the groups that there are."""
    with closing(open_client(KafkaAdminClient, connection_settings(kafka))) as admin:
        return set(admin.list_topics()), {group["group_id"] for group in admin.list_groups()}


def test_topics_as_the_engine_makes_them_pass(kafka_config: KafkaConfig, tmp_path: Path) -> None:
    lines = lines_of(kafka_config, tmp_path)
    assert [line for line in lines if line.level not in (Level.OK,)] == []
    assert {line.check for line in lines} == {check.name for check in CHECKS} - {"certificates"}


def test_a_missing_topic_is_told_and_not_made_and_no_group_comes_into_being(
    kafka_config: KafkaConfig, tmp_path: Path
) -> None:
    before = at_the_broker(kafka_config)
    missing = kafka_config.model_copy(update={"events_topic": "ousel.missing", "group_id": "ousel-check"})
    lines = lines_of(missing, tmp_path)
    (warning,) = (line for line in lines if line.level == Level.WARNING)
    assert warning.check == "topics" and "topic 'ousel.missing' does not exist" in warning.message
    assert at_the_broker(kafka_config) == before
    assert not (tmp_path / "none").exists()


def test_too_few_partitions_are_an_error_with_both_remedies(kafka_config: KafkaConfig, tmp_path: Path) -> None:
    lines = lines_of(kafka_config.model_copy(update={"events_partitions": 5}), tmp_path)
    (error,) = (line for line in lines if line.level == Level.ERROR)
    assert "has 3 partitions, kafka.events_partitions wants 5: stop every engine and add partitions, or set" in error[2]


def test_the_command_ends_with_1_where_no_broker_answers_and_prints_json() -> None:
    command = [sys.executable, "-m", "engine", "check", "--json"]
    variables = {"OUSEL_KAFKA__BOOTSTRAP": "127.0.0.1:1", "OUSEL_SNAPSHOT__ENABLED": "false", "PATH": ""}
    variables |= {"OUSEL_SERVING__PORT": "0", "OUSEL_SERVING__METRICS_PORT": "0", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (error,) = (line for line in lines if line["level"] == "error")
    assert error["check"] == "brokers" and error["message"].startswith("no Kafka broker at 127.0.0.1:1: check")
