"""The watch over the connection to the broker says once that it went, and once that it is back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from kafka import KafkaConsumer

from engine.config import KafkaConfig
from engine.events.log_watch import LogWatch

GONE, BACK = "reading goes on once one does", "again"


class Connections:
    """A consumer that has so many connections at each check, one after the other."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = iter(counts)

    def metrics(self) -> dict[str, dict[str, float]]:
        """As kafka-python gives them."""
        return {"consumer-metrics": {"connection-count": float(next(self._counts))}}


def said(counts: Sequence[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[str]:
    """GONE and BACK, as they were said."""
    monkeypatch.setattr("engine.events.log_watch._CHECK_S", 0.0)
    watch = LogWatch(KafkaConfig(), cast(KafkaConsumer, Connections(counts)))
    for count in counts:
        watch.check()
        assert watch.connected == (count > 0)
    return [GONE if GONE in record.getMessage() else BACK for record in caplog.records]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1, 1, 1], []),
        ([1, 0, 1, 0, 2], []),
        ([1, 0, 0, 0, 0], [GONE]),
        ([0, 0, 1, 1], [GONE, BACK]),
        ([0, 0, 1, 0, 1, 1], [GONE, BACK]),
        ([0, 0, 1, 0, 0, 1], [GONE, BACK, GONE, BACK]),
    ],
)
def test_a_connection_that_is_gone_for_one_check_is_no_news(
    counts: Sequence[int], expected: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert said(counts, monkeypatch, caplog) == expected
