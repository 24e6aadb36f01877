"""Which broker is chosen, and what is said where it can't run; tests/integration runs against the chosen one."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.local.broker import BrokerError, EmbeddedBroker
from deploy.local.brokers import start_broker


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that looks as if it held Kafka."""
    libs = tmp_path / "kafka" / "libs"
    libs.mkdir(parents=True)
    (libs / "kafka-clients-9.8.7.jar").touch()
    return libs.parent


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only program on the PATH; it says what it was asked and fails."""
    path = tmp_path / "bin" / "java"
    path.parent.mkdir()
    path.write_text('#!/bin/sh\n[ "$1" = -version ] && exit 0\necho "asked for $*"\nexit 3\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent))
    return path


@pytest.mark.integration
@pytest.mark.parametrize("home", [None, ""])
def test_without_kafka_home_it_is_the_embedded_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("KAFKA_HOME", home)
    with start_broker(tmp_path) as broker:
        assert isinstance(broker, EmbeddedBroker)
        assert broker.name == "the embedded broker"
        assert broker.client_settings() == {"bootstrap": broker.bootstrap}


def test_the_embedded_broker_does_not_pretend_to_be_secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    for security in ({"tls": True}, {"sasl": ("user", "password")}):
        with pytest.raises(BrokerError, match="no TLS and no SASL: set KAFKA_HOME"):
            start_broker(tmp_path, **security)


@pytest.mark.parametrize("missing", ["folder", "libs", "jars"])
def test_a_kafka_home_without_kafka_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    home = tmp_path / "home"
    if missing == "jars":
        (home / "libs").mkdir(parents=True)
    elif missing == "libs":
        home.mkdir()
    monkeypatch.setenv("KAFKA_HOME", str(home))
    with pytest.raises(BrokerError, match=rf"KAFKA_HOME must name a folder whose libs/ .*, got '{home}'"):
        start_broker(tmp_path / "data")


def test_no_java_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(home))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match="needs java 17 or newer on the PATH"):
        start_broker(tmp_path / "data")


def test_a_java_that_does_not_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path, java: Path
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(home))
    java.write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(BrokerError, match="ended with 7"):
        start_broker(tmp_path / "data")


@pytest.mark.usefixtures("java")
def test_a_kafka_that_fails_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(home))
    data = tmp_path / "data"
    with pytest.raises(BrokerError, match=f"can't prepare {data}:\n.*asked for -cp {home}/libs/"):
        start_broker(data)
    (data / "data").mkdir()
    (data / "data" / "meta.properties").touch()  # as if it had been prepared
    with pytest.raises(BrokerError, match=r"ended with exit code 3:\n.*asked for .* kafka\.Kafka"):
        start_broker(data)


@pytest.mark.usefixtures("java")
def test_a_password_that_would_break_the_settings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(home))
    with pytest.raises(BrokerError, match="no quotes"):
        start_broker(tmp_path / "data", sasl=("user", 'a"b'))


@pytest.mark.usefixtures("java")
def test_an_identity_that_begins_with_a_dash_is_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(home))
    monkeypatch.setattr(uuid, "uuid4", lambda: SimpleNamespace(bytes=b"\xf8" + bytes(15)))
    with pytest.raises(BrokerError, match=r"asked for .* format --cluster-id=-\S+ -c "):
        start_broker(tmp_path / "data")
