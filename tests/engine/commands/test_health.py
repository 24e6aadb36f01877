"""`ousel-engine health` says by its exit code whether an engine serves, and imports nothing that takes long."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health as standard
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.commands.health import address_of, health
from engine.config import Config, ServingConfig
from engine.failures import WrongValue

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Server:
    """Answers health alone."""

    def __init__(self) -> None:
        self.servicer = standard.HealthServicer()
        self.grpc = grpc.server(ThreadPoolExecutor(1))
        health_pb2_grpc.add_HealthServicer_to_server(self.servicer, self.grpc)
        self.port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.grpc.start()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.grpc.stop(None).wait()


def test_an_engine_that_serves_is_no_failure_and_no_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.servicer.set("", SERVING)
    health(f"127.0.0.1:{server.port}", None, 30)
    assert capsys.readouterr() == ("", "")


def test_an_engine_that_is_not_ready_is_a_failure(server: Server) -> None:
    server.servicer.set("", NOT_SERVING)
    with pytest.raises(SystemExit, match=rf"^ousel-engine health: 127.0.0.1:{server.port}: NOT_SERVING$"):
        health(f"127.0.0.1:{server.port}", None, 30)


def test_an_address_where_nobody_listens_is_a_failure(server: Server) -> None:
    server.grpc.stop(None).wait()
    with pytest.raises(SystemExit, match=r"UNAVAILABLE: .*Connection refused"):
        health(f"127.0.0.1:{server.port}", None, 30)


def test_without_an_address_the_engine_of_the_settings_is_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.servicer.set("", SERVING)
    config = tmp_path / "ousel.toml"
    config.write_text(f"[serving]\nport = {server.port}\n")
    health(None, config, 30)
    monkeypatch.setenv("OUSEL_SERVING__PORT", str(server.port))
    health(None, None, 30)


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1:7"), ("0.0.0.0", "127.0.0.1:7"), ("::", "[::1]:7"), ("a.b", "a.b:7")]
)
def test_an_engine_on_every_interface_is_asked_on_the_loopback(host: str, address: str) -> None:
    assert address_of(Config(serving=ServingConfig(host=host, port=7))) == address


def test_the_port_of_health_alone_is_asked_where_there_is_one() -> None:
    assert address_of(Config(serving=ServingConfig(port=7, health_host="0.0.0.0", health_port=8))) == "127.0.0.1:8"
    with pytest.raises(ValueError, match=r"serving\.health_port is 0"):
        address_of(Config(serving=ServingConfig(port=7, health_port=0)))


def test_an_engine_that_speaks_tls_needs_a_port_of_health_alone(tmp_path: Path) -> None:
    for name in ("certificate", "key"):
        (tmp_path / name).touch()
    tls = {"certificate": tmp_path / "certificate", "key": tmp_path / "key"}
    with pytest.raises(ValueError, match=r"\(tls.certificate\): set serving.health_port"):
        address_of(Config(tls=tls))
    assert address_of(Config(tls=tls, serving=ServingConfig(health_port=8))) == "127.0.0.1:8"


def test_a_port_that_only_the_engine_knows_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUSEL_SERVING__PORT", "0")
    with pytest.raises(WrongValue, match=r"serving.port is 0, .*name the address, as host:port"):
        health(None, None, 30)


def test_an_address_of_another_form_is_refused() -> None:
    with pytest.raises(WrongValue, match=r"ADDRESS must be host:port, .*, got 'engine'"):
        health("engine", None, 30)


def test_nothing_is_imported_that_takes_long() -> None:
    """A container asks every few seconds, on the cores of the engine."""
    code = "import sys, engine.__main__, engine.commands.health; print(*sorted({names} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code.format(names={"torch", "numba", "numpy", "kafka", "pyarrow"})],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "\n"
