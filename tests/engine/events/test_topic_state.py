from __future__ import annotations

from dataclasses import replace

import pytest

from engine.config import KafkaConfig
from engine.events.topic_state import TopicState, topic_change, topic_problems

CONFIG = KafkaConfig()
RETENTION = {"retention.ms": "604800000", "retention.bytes": "-1"}


def topic(cleanup: str, partitions: int = 4, **settings: str) -> TopicState:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return TopicState("an id", partitions, {"cleanup.policy": cleanup} | RETENTION | named)


GOOD = {
    CONFIG.events_topic: topic("delete"),
    CONFIG.items_topic: topic("compact", partitions=1),
    CONFIG.dead_letters_topic: topic("delete", partitions=1),
}


def said(**changes: TopicState | None) -> list[str]:
    names = {"events": CONFIG.events_topic, "items": CONFIG.items_topic, "letters": CONFIG.dead_letters_topic}
    return list(topic_problems(CONFIG, GOOD | {names[short]: state for short, state in changes.items()}))


def test_topics_as_ousel_makes_them_are_nothing_to_complain_of() -> None:
    assert said() == []


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (topic("delete"), "deletes catalog records by age"),
        (topic("compact,delete"), "deletes catalog records by age"),
        (topic("compact,delete", retention_ms="-1", retention_bytes="1000"), "deletes catalog records by age or size"),
        (topic("delete", retention_ms="-1"), "keeps every old record"),
    ],
)
def test_an_items_topic_that_is_not_compacted_alone_is_named_with_the_remedy(state: TopicState, reason: str) -> None:
    (line,) = said(items=state)
    assert line.startswith("topic 'ousel.items' must be compacted and nothing else")
    assert f"its cleanup.policy is {state.cleanup}: " in line
    assert reason in line
    assert "set cleanup.policy=compact for it" in line


def test_compaction_with_a_retention_that_deletes_nothing_is_fine() -> None:
    assert said(items=topic("compact,delete", retention_ms="-1")) == []


@pytest.mark.parametrize("cleanup", ["compact", "compact,delete"])
def test_an_events_topic_that_is_compacted_is_named_with_the_remedy(cleanup: str) -> None:
    (line,) = said(events=topic(cleanup))
    assert line.startswith("topic 'ousel.events' must not be compacted")
    assert "only the newest event of each user; set cleanup.policy=delete" in line


def test_too_few_partitions_are_named_with_both_remedies() -> None:
    (line,) = said(events=topic("delete", partitions=1))
    assert line.startswith("topic 'ousel.events' has 1 partition, kafka.events_partitions wants 4:")
    assert line.endswith("add partitions, or set kafka.events_partitions=1")
    assert said(events=topic("delete", partitions=9)) == []


def test_letters_that_can_not_be_kept_are_a_problem() -> None:
    (missing,) = said(letters=None)
    assert missing.startswith("topic 'ousel.dead-letters' does not exist")
    (compacted,) = said(letters=topic("compact"))
    assert compacted.startswith("topic 'ousel.dead-letters' must not be compacted")


def test_settings_that_the_broker_does_not_tell_are_not_complained_of() -> None:
    assert said(items=TopicState("an id", 1), events=TopicState("an id", 4), letters=TopicState("an id", 1)) == []


def test_a_topic_is_another_one_by_its_id_alone() -> None:
    had = GOOD[CONFIG.events_topic]
    assert topic_change("t", had, replace(had, settings={}, partitions=5)) is None
    assert topic_change("t", had, replace(had, topic_id=None)) is None
    assert "'t' was deleted and made again" in str(topic_change("t", had, replace(had, topic_id="another")))
    assert "'t' was deleted while it was read" in str(topic_change("t", had, None))
