"""A rolling restart of two engines, as callers of the shipped client see it: no call fails, and every stream goes on.

`python -m benchmarks.rolling` does the same with more of both.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack, closing
from pathlib import Path

import ousel
import pytest

from benchmarks.rolling import ITEMS, USERS, Pair, fill, under_load
from benchmarks.rolling_load import RollingLoad
from engine.config import Config, KafkaConfig, SnapshotConfig
from tests.integration.engines import running, until

pytestmark = pytest.mark.integration

STREAMS, CALLS_PER_S = 20, 25
TIMEOUT_S = 60.0  # On a machine with much else to do calls may be slow, and must not fail.


def test_a_rolling_restart_costs_no_call_and_no_stream(kafka_config: KafkaConfig, tmp_path: Path) -> None:
    fill(kafka_config)
    config = Config(kafka=kafka_config, snapshot=SnapshotConfig(dir=tmp_path / "snapshots"))
    with ExitStack() as opened:
        pair = opened.enter_context(closing(Pair(config, tmp_path)))
        load = RollingLoad(pair.addresses, USERS, ITEMS, STREAMS, CALLS_PER_S, TIMEOUT_S)
        seen = under_load(load, pair, rounds=1, settled_s=0.5)
    assert seen.calls > 0
    assert not seen.failed
    assert not seen.broken
    assert seen.silent == 0
    assert seen.opened > STREAMS, "no stream was resumed, so no engine has been away"


def test_the_last_snapshot_comes_after_the_last_answer_and_a_second_signal_ends_at_once(
    kafka_config: KafkaConfig, tmp_path: Path
) -> None:
    fill(kafka_config)
    variables = {
        "OUSEL_SNAPSHOT__DIR": str(tmp_path / "snapshots"),
        "OUSEL_SNAPSHOT__ENGINE": "one",
        "OUSEL_SNAPSHOT__INTERVAL_S": "3600",
        "OUSEL_SERVING__DRAIN_S": "1",
        "OUSEL_SERVING__GRACE_S": "30",
    }
    with running(kafka_config, tmp_path / "one.log", **variables) as engine:
        with ousel.Client(engine.address, resume_s=0) as client, client.stream(USERS[0]) as updates:
            next(updates)
            engine.process.send_signal(signal.SIGTERM)
            with pytest.raises(ousel.Unavailable) as ended:
                while True:
                    next(updates)
            assert ended.value.reason == "SHUTTING_DOWN"
            assert ended.value.retry_after_s
            assert "stopping: health says NOT_SERVING" in engine.log()
        assert engine.process.wait(60) == 0
    with running(kafka_config, tmp_path / "two.log", **variables | {"OUSEL_SERVING__DRAIN_S": "3600"}) as engine:
        # The first one took its last snapshot, and nothing had to be read again.
        assert "restored at offset" in engine.log()
        assert "no snapshot" not in engine.log()
        engine.process.send_signal(signal.SIGTERM)
        engine.line("stopping: health says NOT_SERVING")
        engine.process.send_signal(signal.SIGTERM)
        until(lambda: engine.process.poll() is not None)
        assert engine.process.returncode == -signal.SIGTERM
