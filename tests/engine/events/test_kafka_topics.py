"""Topics that change, or leave this engine nothing to read, as the source meets them."""

from __future__ import annotations

from contextlib import closing

import pytest
from kafka.errors import LogTruncationError, OffsetOutOfRangeError

from engine.events.source import SourceError
from tests.engine.events.test_kafka import DEADLINE_S, PARTITION, eventually, offsets, source_of


def test_a_topic_that_can_not_be_read_on_ends_reading_behind_the_records_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, _ = source_of(monkeypatch, 1)
    with closing(source):
        eventually(source.lag_by_partition)
        assert offsets(source.poll(DEADLINE_S)) == [0]
        source._topic_watch.failure = "topic 'ousel.events' has 2 partitions now, and had 1: restart every engine"
        eventually(lambda: source._failure)
        with pytest.raises(SourceError, match="has 2 partitions now, and had 1: restart every engine"):
            source.poll(DEADLINE_S)


@pytest.mark.parametrize("error", [OffsetOutOfRangeError({PARTITION: 1}), LogTruncationError({PARTITION: None})])
@pytest.mark.parametrize("news", [None, "topic 'ousel.events' was deleted and made again"])
def test_a_lost_place_in_the_log_is_explained_by_what_became_of_the_topic(
    monkeypatch: pytest.MonkeyPatch, error: Exception, news: str | None
) -> None:
    source, consumer = source_of(monkeypatch)
    with closing(source):
        source._topic_watch.news = news  # type: ignore[attr-defined]
        consumer.script = [error]
        with pytest.raises(SourceError, match=news or "no longer holds the records that come next"):
            source.poll(DEADLINE_S)


def test_a_member_that_gets_no_events_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, consumer = source_of(monkeypatch, started=False, share=True)
    listener = consumer.listener
    assert listener is not None
    with closing(source):
        for partitions, said in (([PARTITION], False), ([], True)):
            consumer.script = [
                lambda: listener.on_partitions_revoked([]),
                lambda partitions=partitions: listener.on_partitions_assigned(partitions),
            ]
            eventually(
                lambda partitions=partitions: (
                    (found := source.assignment()) is not None and len(found.partitions) == len(partitions)
                )
            )
            assert ("this engine has no partition of ousel.events" in caplog.text) == said
