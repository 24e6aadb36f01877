"""Reading that goes on elsewhere while records are on their way, and positions of partitions that left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from kafka import TopicPartition

from tests.engine.events.test_kafka import DEADLINE_S, PARTITION, eventually, offsets, source_of

ELSEWHERE = 7


def once_before_return(call: Callable[..., Any], due: Callable[[Any], object], act: Callable[[], None]) -> Any:
    """`call`, which does `act` before it returns for the first time something that is `due`."""
    done = []

    def wrapped(*arguments: Any, **named: Any) -> Any:
        found = call(*arguments, **named)
        if due(found) and not done:
            done.append(True)
            act()
        return found

    return wrapped


@pytest.mark.parametrize("moment", ["poll", "last_stable_offset"])
def test_what_was_being_fetched_at_a_new_start_is_dropped(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """The reader starts elsewhere while a fetch is under way, or while what it brought is being queued."""
    source, consumer = source_of(monkeypatch, end=9, started=False)
    with closing(source):
        assert source.assignment() is not None

        def restart() -> None:
            source.start({tuple(PARTITION): ELSEWHERE})
            consumer.script = [2]

        inner = getattr(consumer, moment)
        setattr(consumer, moment, once_before_return(inner, bool, restart))
        source.start({tuple(PARTITION): 0})
        consumer.script = [3]
        found = source.poll(DEADLINE_S)
        assert offsets(found) == [ELSEWHERE, ELSEWHERE + 1]
        assert source.lag() == 0


def test_only_positions_of_assigned_partitions_are_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    source, consumer = source_of(monkeypatch, end=9, started=False, share=True)
    committed: dict[TopicPartition, int] = {}

    def commit(positions: Any, callback: Callable[[object, object], None]) -> None:
        committed.update({partition: at.offset for partition, at in positions.items()})
        callback(positions, None)

    monkeypatch.setattr(consumer, "commit_async", commit, raising=False)
    listener = consumer.listener
    assert listener is not None
    with closing(source):
        source.commit({tuple(PARTITION): 1})  # nothing is assigned yet
        consumer.script = [lambda: listener.on_partitions_assigned([PARTITION])]
        eventually(source.assignment)
        source.commit({tuple(PARTITION): 4, (PARTITION.topic, 1): 5, ("another", 0): 6})
        eventually(lambda: committed)
        assert committed == {PARTITION: 4}
        consumer.script = [lambda: listener.on_partitions_lost([PARTITION])]
        eventually(lambda: source.assignment() is None)
        source.commit({tuple(PARTITION): 8})
        polls = consumer.polls_while_paused
        consumer.script = [1]  # nothing flows, so it stays there
        eventually(lambda: consumer.polls_while_paused > polls + 1)  # each comes after a chance to commit
        assert committed == {PARTITION: 4}
