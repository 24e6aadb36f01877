from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from engine.events.batch import Record
from engine.events.source import MemorySource
from tests.trainer.test_service import TOPIC, records
from trainer.config import TrainerConfig
from trainer.encoder import Stopped
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
