"""Brokers and processes that fall silent under a running engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from kafka.admin import ConfigResource, KafkaAdminClient
from ousel import Client, InvalidArgument, ResourceExhausted, Unavailable

from deploy.local.brokers import Broker
from engine.config import KafkaConfig
from engine.events.connection import connection_settings
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
            silent = broker.pid if who == "the broker" else reader.pid
            os.kill(silent, signal.SIGSTOP)
            try:
                engine.line("the log has not answered for 2 s: not ready until it does")
                until(lambda: engine.health() != SERVING, engine.log)
                assert log_age_s(engine) > 2
                with Client(engine.address) as client:
                    assert client.recommend("u1", k=5).items
                    assert not client.status().serving
            finally:
                os.kill(silent, signal.SIGCONT)
            engine.line("the log answers again")
            engine.wait_until_serving()
            assert engine.log().count("the log has not answered") == 1
            assert engine.stop() == 0


@contextmanager
def frozen(broker: Broker) -> Iterator[None]:
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def writing(start: Callable[..., Broker], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Client]]:
    """A broker whose events topic takes records of 500 kB, and a client of an engine that lets 4 MiB wait for it."""
    folder = tmp_path_factory.mktemp("writing")
    with start(folder / "broker") as broker:
        config = KafkaConfig(**broker.client_settings(), max_pending_bytes=4 * 2**20)
        ensure_topics(config)
        with closing(KafkaAdminClient(**connection_settings(config))) as admin:
            small = ConfigResource("TOPIC", config.events_topic, configs={"max.message.bytes": "500000"})
            admin.alter_configs([small])
        with running(config, folder / "engine.log") as engine, Client(engine.address) as client:
            yield broker, client


def test_a_caller_learns_that_kafka_is_away_and_where(writing: tuple[Broker, Client]) -> None:
    """By default settings: 5 s for the client, 10 s for Kafka. Its address is named, and nothing else is blamed."""
    broker, client = writing
    client.track("i", "u", timeout_s=60)
    with frozen(broker), pytest.raises(Unavailable) as failed:
        client.track("i", "u")
    assert str(failed.value).startswith(f"Kafka at {broker.bootstrap} did not acknowledge the event within 4.")
    assert "host and port are right" not in str(failed.value)


@pytest.mark.parametrize("size", [900_000, 2_000_000, 5_000_000], ids=["broker", "producer", "gRPC"])
def test_an_event_that_is_too_large_is_no_reason_to_try_again(writing: tuple[Broker, Client], size: int) -> None:
    """Whoever it is too large for, the caller hears that the event breaks a rule."""
    broker, client = writing
    if broker.name == "the embedded broker" and size < 2**20:
        pytest.skip("this broker takes records of any size")
    with pytest.raises(InvalidArgument, match=r"must be smaller|larger than the engine"):
        client.track("i", "u", attributes={"text": "x" * size}, timeout_s=60)
    client.track("i", "u", timeout_s=60)


def test_large_events_that_wait_for_a_frozen_broker_are_bounded(writing: tuple[Broker, Client]) -> None:
    broker, client = writing
    text = {"text": "x" * 400_000}
    with frozen(broker), ThreadPoolExecutor(32) as calls:
        sent = [calls.submit(client.track, "i", "u", attributes=text, timeout_s=60) for _ in range(32)]
        refused = [future for future in sent if isinstance(future.exception(), ResourceExhausted)]
        away = [future for future in sent if isinstance(future.exception(), Unavailable)]
    assert len(refused) + len(away) == len(sent)
    assert refused
    assert all("kafka.max_pending_bytes=4194304" in str(future.exception()) for future in refused)
    client.track("i", "u", timeout_s=60)
