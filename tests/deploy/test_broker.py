from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from deploy.local.broker import BrokerError, EmbeddedBroker

pytestmark = pytest.mark.integration

DEADLINE_S = 20.0
ROOT = Path(__file__).parents[2]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not (holds := condition()) and time.monotonic() < deadline:
        os.sched_yield()
    return holds


def gone(pid: int) -> bool:
    """True once a process has ended; a zombie that nobody has waited for counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_it_serves_kafka_and_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        with closing(KafkaProducer(bootstrap_servers=broker.bootstrap)) as producer:
            producer.send("t", b"kept").get(DEADLINE_S)
        port = broker.port
    assert gone(broker.pid)
    assert not answers(port)
    with EmbeddedBroker(tmp_path, port) as broker:
        assert broker.bootstrap == f"127.0.0.1:{port}"
        consumer = KafkaConsumer("t", bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
        with closing(consumer):
            partition = TopicPartition("t", 0)
            records = consumer.poll(timeout_ms=DEADLINE_S * 1000).get(partition, [])
    assert [record.value for record in records] == [b"kept"]


def test_two_run_side_by_side(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "a") as one, EmbeddedBroker(tmp_path / "b") as two:
        assert one.port != two.port


def test_stop_and_kill_may_be_repeated(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    broker.stop()
    broker.stop()
    broker.kill()
    assert broker.wait(0) is not None


def test_a_taken_port_is_told_with_the_log(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(BrokerError, match=f"exit code 1:\n(.*\n)*.*port {port} is already in use"):
            EmbeddedBroker(tmp_path, port)


def test_a_broker_that_never_answers_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    popen = subprocess.Popen

    def record(*args: object, **kwargs: object) -> object:
        process = popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        started.append(process.pid)
        return process

    monkeypatch.setattr("deploy.local.broker._START_S", 0.2)
    monkeypatch.setattr(subprocess, "Popen", record)
    with pytest.raises(BrokerError, match=r"did not answer within 0\.2 s"):
        EmbeddedBroker(tmp_path)
    assert gone(started[0])


@contextmanager
def foreground(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Starts the command; gives it, the port it names and the pid of the broker below it. Kills what is left of it."""
    command = [sys.executable, "-m", "deploy.local.broker", "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.match(r"Kafka protocol at 127\.0\.0\.1:(\d+), ", line)
            assert address, line
            (child,) = psutil.Process(process.pid).children()
            yield process, int(address[1]), child.pid
        finally:
            process.kill()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_with_its_broker(tmp_path: Path, signum: signal.Signals) -> None:
    with foreground(tmp_path) as (process, port, child):
        process.send_signal(signum)
        assert process.wait(DEADLINE_S) == 0
    assert gone(child)
    assert not answers(port)


def test_the_broker_dies_with_a_killed_parent(tmp_path: Path) -> None:
    with foreground(tmp_path) as (process, port, child):
        process.kill()
    assert eventually(lambda: gone(child))
    assert eventually(lambda: not answers(port))


def test_the_command_fails_where_its_broker_ends(tmp_path: Path) -> None:
    with foreground(tmp_path) as (process, _, child):
        os.kill(child, signal.SIGKILL)
        assert process.wait(DEADLINE_S) == 1
