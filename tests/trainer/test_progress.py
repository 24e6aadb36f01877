from __future__ import annotations

import itertools
import logging

import pytest

from trainer.progress import Reading


def test_reading_writes_one_line_every_few_seconds_and_asks_for_the_total_only_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock, asked = itertools.count(), []

    def total() -> int:
        asked.append(1)
        return 8_000_000

    reading = Reading("reading the log", "records", every_s=10.0, clock=lambda: next(clock) / 2)
    for done in range(0, 200_000, 1000):
        reading.update(done, total)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("reading the log: 1") and lines[0].endswith(" of 8,000,000 records")
    assert len(lines) == len(asked) and 5 <= len(lines) <= 11
