from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest

from engine.events.batch import Record
from engine.events.source import MemorySource
from engine.signals import Stopped
from tests.trainer.stage import TOPIC, records
from trainer import progress
from trainer.config import TrainerConfig
from trainer.follow import replay_log


def test_all_that_the_log_held_at_the_start_is_folded() -> None:
    source = MemorySource([records(0, 30), records(0, 20, partition=1), records(30, 10)])
    replay = replay_log(TrainerConfig(), source, threading.Event())
    assert replay.state.positions == {(TOPIC, 0): 40, (TOPIC, 1): 20}
    assert len(replay) == 60


def test_a_stop_ends_the_wait_for_records(monkeypatch: pytest.MonkeyPatch) -> None:
    source, stop = MemorySource([records(0, 30)]), threading.Event()

    def stopped(timeout_s: float) -> Sequence[Record]:
        stop.set()
        return ()

    monkeypatch.setattr(source, "poll", stopped)
    with pytest.raises(Stopped):
        replay_log(TrainerConfig(), source, stop)


def test_the_progress_is_in_records_that_are_read_and_not_in_those_that_are_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    config = TrainerConfig.model_validate({"trainer": {"max_log_events": 100, "min_events": 10}})
    source = MemorySource([records(first, 100) for first in range(0, 1000, 100)])
    assert len(replay_log(config, source, threading.Event())) == 100
    lines = [record.getMessage() for record in caplog.records if "log" in record.getMessage()]
    assert lines == [
        *(f"reading the log: {read} of 1,000 records" for read in range(100, 1000, 100)),
        "the log is read: 1,000 records, 100 events at hand",
    ]
