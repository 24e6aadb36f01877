"""What `ousel-trainer check` says of the engine that models are pushed to, and of the files for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from deploy.local.certificates import issue_certificate, issue_certificates
from trainer.commands import check
from trainer.commands.check import look_at_certificate_files, look_at_engine
from trainer.config import TrainerConfig


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("issued") / "tls"
    issue_certificates(folder)
    issue_certificate(folder, "trainer", "trainer", days=-1)
    return folder


@pytest.fixture
def port(issued: Path) -> Iterator[int]:
    """Of a server that speaks TLS alone."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    pair = (issued / "server.key").read_bytes(), (issued / "server.crt").read_bytes()
    listening = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield listening
    server.stop(None).wait()


def config(**settings: object) -> TrainerConfig:
    return TrainerConfig.model_validate({"trainer": settings})


def test_an_engine_that_speaks_tls_is_found_by_a_trainer_that_does(port, issued, monkeypatch):
    monkeypatch.setattr(check, "_CONNECT_S", 20.0)
    (found,) = look_at_engine(config(engine=f"localhost:{port}", tls_authorities=issued / "ca.pem"))
    assert found.level == "ok"
    monkeypatch.setattr(check, "_CONNECT_S", 0.5)
    (found,) = look_at_engine(config(engine=f"localhost:{port}"))
    assert found.level == "warning"


def test_the_files_for_the_engine_are_looked_at(issued):
    settings = config(
        tls_authorities=issued / "ca.pem", tls_certificate=issued / "trainer.crt", tls_key=issued / "trainer.key"
    )
    assert [one.level for one in look_at_certificate_files(settings)] == ["ok", "error"]
    assert not list(look_at_certificate_files(config()))
