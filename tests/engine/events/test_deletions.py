"""From which offset on a topic still shows every deletion, by what the broker says of it."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from kafka import TopicPartition

from engine.events.deletions import deletions_from
from engine.events.source import LogRange
from engine.events.topic_state import TopicState

AT = TopicPartition("items", 0)
DAY_MS = 86_400_000
COMPACT = {"cleanup.policy": "compact", "delete.retention.ms": str(DAY_MS), "message.timestamp.type": "LogAppendTime"}


class Found(NamedTuple):
    offset: int


class Times:
    """Answers with one offset, and remembers the time it was asked for."""

    def __init__(self, offset: int | None) -> None:
        self.offset, self.asked_ms = offset, 0

    def offsets_for_times(self, timestamps):
        (self.asked_ms,) = timestamps.values()
        return {AT: None if self.offset is None else Found(self.offset)}


@pytest.mark.parametrize(
    ("settings", "offset", "shown_from"),
    [
        ({"cleanup.policy": "delete"}, None, 3),
        (COMPACT, 50, 50),
        (COMPACT, None, 90),
        (COMPACT | {"message.timestamp.type": "CreateTime"}, 50, 90),
        (COMPACT | {"delete.retention.ms": "0"}, 50, 90),
        (COMPACT | {"cleanup.policy": "compact,delete"}, 50, 50),
    ],
)
def test_only_times_of_the_broker_show_which_records_are_young_enough(settings, offset, shown_from):
    times = Times(offset)
    found = deletions_from(times, TopicState("id", 1, settings), {AT: LogRange(3, 90)})
    assert found == {("items", 0): shown_from}
    if times.asked_ms:
        assert 0 < times.asked_ms - (time.time() * 1000 - DAY_MS) < DAY_MS / 2


@pytest.mark.parametrize("topic", [None, TopicState("id", 1)])
def test_what_the_broker_does_not_tell_nobody_knows(topic):
    assert deletions_from(Times(50), topic, {AT: LogRange(3, 90)}) == {}
