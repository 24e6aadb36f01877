from __future__ import annotations

import pytest
from kafka.errors import TopicAuthorizationFailedError

from engine.checks.finding import Level
from engine.checks.topics import look_at_topics
from engine.config import KafkaConfig, SnapshotConfig
from tests.engine.checks.brokers import FakeAdmin, answering

KAFKA = KafkaConfig()
TOPICS = {KAFKA.events_topic: 4, KAFKA.items_topic: 1, KAFKA.dead_letters_topic: 1}
SETTINGS = {
    KAFKA.events_topic: {"cleanup.policy": "delete", "retention.ms": "604800000"},
    KAFKA.items_topic: {"cleanup.policy": "compact"},
    KAFKA.dead_letters_topic: {"cleanup.policy": "delete", "retention.ms": "-1"},
}


def found(monkeypatch: pytest.MonkeyPatch, admin: FakeAdmin, snapshot: SnapshotConfig | None = None) -> dict[str, str]:
    """The messages, each with its level."""
    answering(monkeypatch, "topics", admin)
    return {one.message: one.level.value for one in look_at_topics(KAFKA, snapshot or SnapshotConfig())}


def test_topics_as_the_engine_makes_them_are_ok_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = found(monkeypatch, FakeAdmin(TOPICS, SETTINGS))
    assert set(lines.values()) == {Level.OK}
    assert "topic 'ousel.events' has partitions: 4, cleanup.policy=delete, records are kept for 7 days" in lines


def test_a_missing_topic_is_a_warning_that_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = found(monkeypatch, FakeAdmin({KAFKA.items_topic: 1, KAFKA.dead_letters_topic: 1}, SETTINGS))
    (line,) = (line for line, level in lines.items() if level == Level.WARNING)
    assert line.startswith("topic 'ousel.events' does not exist: the engine makes it at its start, with partitions: 4")
    assert line.endswith("check kafka.events_topic and kafka.bootstrap")


def test_a_topic_that_the_broker_does_not_describe_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {KAFKA.items_topic: TopicAuthorizationFailedError.errno}
    (line,) = (
        line
        for line, level in found(monkeypatch, FakeAdmin(TOPICS, SETTINGS, errors=refused)).items()
        if level == "error"
    )
    assert "does not describe topic 'ousel.items' (kafka.items_topic): give this client the right DESCRIBE" in line


@pytest.mark.parametrize(
    ("partitions", "cleanup", "said"),
    [
        (2, "delete", "has 2 partitions, kafka.events_partitions wants 4: stop every engine and add partitions"),
        (4, "compact", "must not be compacted, its cleanup.policy is compact"),
    ],
)
def test_a_topic_that_is_set_up_wrongly_is_an_error_with_the_remedy(
    partitions: int, cleanup: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS | {KAFKA.events_topic: {"cleanup.policy": cleanup}}
    lines = found(monkeypatch, FakeAdmin(TOPICS | {KAFKA.events_topic: partitions}, settings))
    (line,) = (line for line, level in lines.items() if level == Level.ERROR)
    assert said in line


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        (SnapshotConfig(interval_s=604800, keep=3), "less than snapshot.keep times snapshot.interval_s (1.8144e+06 s)"),
        (SnapshotConfig(enabled=False), "snapshot.enabled is false: a start forgets what the topic has deleted"),
    ],
)
def test_a_retention_that_is_shorter_than_snapshots_last_is_a_warning(
    snapshot: SnapshotConfig, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = found(monkeypatch, FakeAdmin(TOPICS, SETTINGS), snapshot)
    (line,) = (line for line, level in lines.items() if level == Level.WARNING)
    assert said in line
