"""Brokers and processes that fall silent under a running engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from ousel import Client

from deploy.local.brokers import Broker
from engine.config import KafkaConfig
from engine.events.topics import ensure_topics
from tests.integration.engines import SERVING, EngineProcess, load, running, until

pytestmark = pytest.mark.integration


def log_age_s(engine: EngineProcess) -> float:
    page = urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics").read().decode()
    return float(next(line for line in page.splitlines() if line.startswith("ousel_log_age_seconds ")).split()[1])


@pytest.mark.parametrize("who", ["the broker", "the process that reads"])
def test_an_engine_whose_log_falls_silent_says_so_and_is_ready_again_once_it_answers(
    start: Callable[..., Broker], tmp_path: Path, who: str
) -> None:
    with start(tmp_path / "broker") as broker:
        config = KafkaConfig(**broker.client_settings(), request_timeout_ms=3000)
        ensure_topics(config)
        load(config)
        with running(config, tmp_path / "engine.log", OUSEL_SERVING__MAX_LOG_AGE_S="2") as engine:
            (reader,) = psutil.Process(engine.process.pid).children()
            frozen = broker.pid if who == "the broker" else reader.pid
            os.kill(frozen, signal.SIGSTOP)
            try:
                engine.line("the log has not answered for 2 s: not ready until it does")
                until(lambda: engine.health() != SERVING, engine.log)
                assert log_age_s(engine) > 2
                with Client(engine.address) as client:
                    assert client.recommend("u1", k=5).items
                    assert not client.status().serving
            finally:
                os.kill(frozen, signal.SIGCONT)
            engine.line("the log answers again")
            until(lambda: engine.health() == SERVING, engine.log)
            assert engine.log().count("the log has not answered") == 1
            assert engine.stop() == 0
