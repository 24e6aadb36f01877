"""Topics that change under a watch, as a broker tells of them; tests/integration/test_topics.py has a real one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from kafka.errors import KafkaTimeoutError

from engine.config import KafkaConfig
from engine.events import topic_watch as module
from engine.events.topic_state import TopicState
from engine.events.topic_watch import TopicWatch

DEADLINE_S = 20.0
EVENTS = TopicState("first", 3, {"cleanup.policy": "delete"})
READ = ("ousel.events",)


class Topics:
    """What the broker says of its topics, and how often it was asked."""

    def __init__(self) -> None:
        self.found: dict[str, TopicState | None] = {"ousel.events": EVENTS, "ousel.dead-letters": EVENTS}
        self.error: Exception | None = None
        self.asked = 0

    def describe(self, *_: object) -> dict[str, TopicState | None]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return dict(self.found)


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    topics = Topics()
    monkeypatch.setattr(module, "describe_topics", topics.describe)
    monkeypatch.setattr(module, "KafkaAdminClient", lambda **_: None)
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    monkeypatch.setattr(module, "_SECOND_LOOK_S", 0.001)
    return topics


@pytest.fixture
def watch(topics: Topics) -> Iterator[TopicWatch]:
    with closing(TopicWatch(KafkaConfig(events_partitions=3), READ)) as watch:
        looked_again(topics)
        yield watch


def eventually(condition: Callable[[], object]) -> None:
    tick, deadline = threading.Event(), time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        tick.wait(0.002)


def looked_again(topics: Topics) -> None:
    """Waits for a look that began after now."""
    asked = topics.asked
    eventually(lambda: topics.asked >= asked + 2)


def test_a_topic_made_again_is_told_by_its_id_wherever_its_offsets_lie(topics: Topics, watch: TopicWatch) -> None:
    topics.found["ousel.events"] = replace(EVENTS, topic_id="second")
    eventually(lambda: watch.failure)
    assert "'ousel.events' was deleted and made again while it was read" in str(watch.failure)


def test_a_topic_that_is_missing_once_may_come_back(topics: Topics) -> None:
    """A broker that has just started may not know its topics yet."""
    answers = [EVENTS, None, EVENTS, None, EVENTS]

    def describe(*_: object) -> dict[str, TopicState | None]:
        topics.asked += 1
        return {"ousel.events": answers.pop(0) if answers else EVENTS}

    topics.describe = describe  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "describe_topics", describe)
        with closing(TopicWatch(KafkaConfig(), READ)) as watch:
            eventually(lambda: not answers)
            looked_again(topics)
            assert watch.failure is None


def test_a_topic_that_stays_missing_was_deleted(topics: Topics, watch: TopicWatch) -> None:
    topics.found["ousel.events"] = None
    eventually(lambda: watch.failure)
    assert "'ousel.events' was deleted while it was read" in str(watch.failure)


def test_a_reader_that_an_error_has_stopped_needs_no_second_look(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", DEADLINE_S)
    with closing(TopicWatch(KafkaConfig(), READ)) as watch:
        eventually(lambda: watch._first)
        assert watch.explain() is None
        topics.found["ousel.events"] = None
        assert "was deleted while it was read" in str(watch.explain())


@pytest.mark.parametrize("share", [False, True])
def test_partitions_that_are_added_end_reading_unless_a_group_deals_them_out(topics: Topics, share: bool) -> None:
    with closing(TopicWatch(KafkaConfig(share=share), READ)) as watch:
        looked_again(topics)
        topics.found["ousel.events"] = replace(EVENTS, partitions=4)
        if share:
            looked_again(topics)
            assert watch.failure is None
        else:
            eventually(lambda: watch.failure)
            assert "has 4 partitions now, and had 3: restart every engine" in str(watch.failure)


def test_problems_are_said_once_each_and_their_end_once(
    topics: Topics, watch: TopicWatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert watch.problems == frozenset()
    with caplog.at_level(logging.WARNING):
        topics.found["ousel.events"] = replace(EVENTS, settings={"cleanup.policy": "compact"})
        looked_again(topics)
        topics.found["ousel.dead-letters"] = None
        looked_again(topics)
        assert len(watch.problems) == 2
        topics.found |= {"ousel.events": EVENTS, "ousel.dead-letters": EVENTS}
        eventually(lambda: not watch.problems)
        looked_again(topics)
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" must")[0].partition(" does")[0] for line in said] == [
        "topic 'ousel.events'",
        "topic 'ousel.dead-letters'",
        "the topics are as they should be again",
    ]
    assert watch.failure is None


@pytest.mark.parametrize("silent", [False, True])
def test_a_problem_does_not_end_because_the_broker_says_nothing_of_the_topic_for_once(
    topics: Topics, watch: TopicWatch, caplog: pytest.LogCaptureFixture, silent: bool
) -> None:
    compacted = replace(EVENTS, settings={"cleanup.policy": "compact"})
    with caplog.at_level(logging.WARNING):
        topics.found["ousel.events"] = compacted
        eventually(lambda: watch.problems)
        if silent:
            del topics.found["ousel.events"]
        else:
            topics.found["ousel.events"] = replace(EVENTS, settings={})
        looked_again(topics)
        assert len(watch.problems) == 1
        topics.found["ousel.events"] = compacted
        looked_again(topics)
    assert len(caplog.records) == 1


def test_a_broker_that_does_not_answer_changes_nothing(topics: Topics, watch: TopicWatch) -> None:
    topics.error = KafkaTimeoutError("away")
    looked_again(topics)
    topics.error = None
    looked_again(topics)
    assert watch.failure is None


def test_a_topic_that_this_client_may_not_describe_is_not_taken_for_deleted(topics: Topics, watch: TopicWatch) -> None:
    del topics.found["ousel.events"]
    looked_again(topics)
    assert watch.failure is None
