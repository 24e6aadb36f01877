"""What asking for the ends of partitions leaves behind where no broker answers; tests/integration has a real one."""

from __future__ import annotations

import socket
import threading
from contextlib import closing

import pytest
from kafka.errors import KafkaError

from engine.config import KafkaConfig
from engine.events import log_ends
from engine.events.log_ends import KafkaLogEnds


def test_a_broker_that_is_away_leaves_no_thread_behind_however_often_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_ends, "_ASK_MS", 100)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # It refuses connections, since nobody listens.
        config = KafkaConfig(bootstrap=f"127.0.0.1:{taken.getsockname()[1]}")
        before = set(threading.enumerate())
        with closing(KafkaLogEnds(config)) as ends:
            for _ in range(3):
                with pytest.raises(KafkaError):
                    ends.ask([("ousel.events", 0)])
        assert set(threading.enumerate()) <= before
