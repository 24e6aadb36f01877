from __future__ import annotations

import time

import pytest

from engine.checks.clock import look_at_clock
from engine.config import KafkaConfig
from tests.engine.checks.brokers import FakeAdmin, answering

KAFKA = KafkaConfig()


@pytest.mark.parametrize(
    ("ahead_s", "level", "said"), [(-1, "ok", "no record"), (100, "warning", "s ahead of this machine's clock: set")]
)
def test_a_record_from_the_future_says_that_a_clock_is_wrong(
    ahead_s: int, level: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest_ms = int((time.time() + ahead_s) * 1000)
    answering(monkeypatch, "clock", FakeAdmin({KAFKA.events_topic: 2}, newest_ms=newest_ms))
    (one,) = look_at_clock(KAFKA)
    assert one.level == level and said in one.message


def test_a_topic_without_records_or_without_itself_says_nothing_against_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, "clock", FakeAdmin({KAFKA.events_topic: 1}))
    assert [one.level for one in look_at_clock(KAFKA)] == ["ok"]
    answering(monkeypatch, "clock", FakeAdmin({}))
    assert list(look_at_clock(KAFKA)) == []
