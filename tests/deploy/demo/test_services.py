"""Ports are free, and a process that ends is noticed with the end of its log."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from deploy.demo.services import ServiceDied, Services, free_port
from deploy.local.broker import EmbeddedBroker
from deploy.local.processes import Child
from engine.config import KafkaConfig
from engine.events.kafka import connection_settings
from engine.events.topics import ensure_topics


def test_the_usual_port_is_taken_where_it_is_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    assert free_port(port) == port


def test_another_port_is_taken_where_somebody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        assert free_port(port) not in (0, port)


async def test_a_process_that_ends_is_reported_with_code_and_log(tmp_path: Path) -> None:
    services = Services(tmp_path, train_minutes=1.0, retrain_events=100)
    command = [sys.executable, "-c", "import sys; print('2026-01-01 ERROR engine: port 1 is taken'); sys.exit(7)"]
    child = Child("engine", command, tmp_path / "engine.log")
    child.wait(20.0)
    services._running["engine"] = child
    with pytest.raises(ServiceDied, match=r"the engine ended with exit code 7[\s\S]*port 1 is taken"):
        await services.watch()
    assert services.last_line("engine") == "port 1 is taken"
    services.stop()


def test_another_kafka_gets_topics_of_the_demos_own_and_loses_them_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedBroker(tmp_path / "kafka") as broker:
        config = KafkaConfig(bootstrap=broker.bootstrap)
        ensure_topics(config)
        usual = _topics(config)
        monkeypatch.setenv("OUSEL_KAFKA__BOOTSTRAP", broker.bootstrap)
        services = Services(tmp_path / "demo", train_minutes=1.0, retrain_events=100)
        try:
            services.start_log()
            own = {services.kafka.events_topic, services.kafka.items_topic, services.kafka.dead_letters_topic}
            assert _topics(config) == usual | own
            assert len(own - usual) == 3
        finally:
            services.stop()
        assert _topics(config) == usual


def _topics(config: KafkaConfig) -> set[str]:
    admin = KafkaAdminClient(**connection_settings(config))
    try:
        return set(admin.list_topics())
    finally:
        admin.close()


def test_the_embedded_broker_starts_with_topics_and_old_data_and_snapshots_gone(tmp_path: Path) -> None:
    stale = tmp_path / "broker" / "kafka.json"
    stale.parent.mkdir()
    stale.write_text("not what a broker wrote")
    snapshots = tmp_path / "snapshots"
    (snapshots / "host-50051-000000000001").mkdir(parents=True)
    services = Services(tmp_path, train_minutes=1.0, retrain_events=100)
    try:
        services.start_log()
        assert not snapshots.exists()
        assert services._env["OUSEL_SNAPSHOT__DIR"] == str(snapshots)
        host, _, port = services.kafka.bootstrap.rpartition(":")
        socket.create_connection((host, int(port)), 5.0).close()
    finally:
        services.stop()
    with pytest.raises(OSError):
        socket.create_connection((host, int(port)), 5.0)
