"""What is said about a broker that can't be reached; tests/integration/test_security.py has a real one."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from deploy.local.certificates import issue_certificates
from engine.config import ConfigError, KafkaConfig, load_config
from engine.events import connection, diagnosis
from engine.events.connection import connection_settings, wait_for_broker
from engine.events.kafka import KafkaSource
from engine.events.probe import Failure
from engine.events.source import SourceError

DEADLINE_S = 20.0


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, and refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def wait(config: KafkaConfig, reports: int) -> list[str]:
    """Waits for a broker and stops at the given report."""
    stop, said = threading.Event(), []

    def report(line: str) -> None:
        said.append(line)
        if len(said) == reports:
            stop.set()

    assert not wait_for_broker(config, stop, report)
    return said


def test_an_absent_broker_is_reported_once_per_backoff_step(refused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(connection, "_MAX_BACKOFF_S", 0.05)
    said = wait(KafkaConfig(bootstrap=f"127.0.0.1:{refused_port},[::1]:{refused_port}"), reports=5)
    assert [line.rpartition("next try in ")[2] for line in said] == ["0.01 s", "0.02 s", "0.04 s", "0.05 s", "0.05 s"]
    for line in said:
        assert line.startswith(
            f"no Kafka broker at 127.0.0.1:{refused_port},[::1]:{refused_port}: check kafka.bootstrap"
        )
        assert "\n" not in line


def test_a_stop_before_the_first_try_ends_the_wait(refused_port: int) -> None:
    stop = threading.Event()
    stop.set()
    assert not wait_for_broker(KafkaConfig(bootstrap=f"127.0.0.1:{refused_port}"), stop, pytest.fail)


def test_a_source_without_a_broker_says_where_it_looked(refused_port: int) -> None:
    address = f"127.0.0.1:{refused_port}"
    with pytest.raises(SourceError, match=f"no Kafka broker at {address}: check kafka.bootstrap"):
        KafkaSource(KafkaConfig(bootstrap=address, request_timeout_ms=100))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("broker", ("broker", 9092)),
        (" broker:1", ("broker", 1)),
        ("10.0.0.1", ("10.0.0.1", 9092)),
        ("[::1]", ("::1", 9092)),
        ("[fe80::1%eth0]:3", ("fe80::1%eth0", 3)),
    ],
)
def test_an_address_without_a_port_is_looked_for_at_the_port_that_kafkas_clients_take(
    address: str, expected: tuple[str, int]
) -> None:
    assert diagnosis._parsed(address) == expected


@pytest.mark.parametrize("address", ["nonsense", "localhost:99999", "host.invalid:9092"])
def test_an_address_that_is_none_is_reported_like_an_absent_broker(address: str) -> None:
    (line,) = wait(KafkaConfig(bootstrap=address), reports=1)
    assert f"no Kafka broker at {address}: check kafka.bootstrap" in line


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_ANSWER_S", 0.1)
    monkeypatch.setattr(diagnosis, "_CONNECT_S", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_a_port_that_does_not_speak_kafka_is_told_apart(silent_port: int, protocol: str) -> None:
    address = f"127.0.0.1:{silent_port}"
    (line,) = wait(KafkaConfig(bootstrap=address) if protocol == "PLAINTEXT" else secured(address), reports=1)
    assert f"{address} accepts connections but does not answer as a Kafka broker" in line
    assert f"check the port and kafka.security_protocol={protocol}" in line
    assert "secret" not in line


@pytest.mark.usefixtures("impatient")
def test_a_port_without_tls_is_told(silent_port: int, authority: Path) -> None:
    line = over_tls(f"127.0.0.1:{silent_port}", ssl_cafile=authority)
    assert f"127.0.0.1:{silent_port} does not speak TLS" in line
    assert "check the port and kafka.security_protocol=SSL" in line


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue_certificates(tmp_path_factory.mktemp("authority"))


class TlsServer:
    """Shakes hands and then hangs up, with each client on its own, as a broker does: a silent one stops no other."""

    def __init__(self, host: str, authority: Path, client_certificates: bool) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(authority.parent / "server.pem")
        if client_certificates:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(authority)
        self.server = socket.create_server((host, 0))
        self.address = f"{host}:{self.server.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                plain, _ = self.server.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self.shake_hands, args=(plain,), daemon=True).start()

    def shake_hands(self, plain: socket.socket) -> None:
        with suppress(OSError), plain, self.context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(1)


@pytest.fixture
def tls_server(request: pytest.FixtureRequest, authority: Path) -> Iterator[TlsServer]:
    host, client_certificates = getattr(request, "param", ("127.0.0.1", False))
    running = TlsServer(host, authority, client_certificates)
    yield running
    running.server.close()


def over_tls(address: str, **fields: Any) -> str:
    (line,) = wait(KafkaConfig(bootstrap=address, security_protocol="SSL", **fields), reports=1)
    assert "\n" not in line
    return line


def test_another_authority_is_told(tls_server: TlsServer, tmp_path: Path) -> None:
    other = issue_certificates(tmp_path)
    line = over_tls(tls_server.address, ssl_cafile=other)
    assert f"the certificate of {tls_server.address} is not signed by an authority of kafka.ssl_cafile={other}" in line


def test_an_authority_that_is_not_set_is_told(tls_server: TlsServer) -> None:
    assert "kafka.ssl_cafile is not set" in over_tls(tls_server.address)


@pytest.mark.parametrize("tls_server", [("127.0.0.2", False)], indirect=True)
def test_a_certificate_for_another_name_is_told_unless_names_do_not_matter(
    tls_server: TlsServer, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"the certificate of {tls_server.address} is for another name" in over_tls(
        tls_server.address, ssl_cafile=authority
    )
    monkeypatch.setattr(diagnosis, "_ANSWER_S", 0.2)
    line = over_tls(tls_server.address, ssl_cafile=authority, ssl_check_hostname=False)
    assert "does not answer as a Kafka broker" in line


@pytest.mark.parametrize("tls_server", [("127.0.0.1", True)], indirect=True)
def test_a_client_certificate_that_is_missing_is_told(tls_server: TlsServer, authority: Path) -> None:
    line = over_tls(tls_server.address, ssl_cafile=authority)
    assert f"{tls_server.address} wants a client certificate: set kafka.ssl_certfile and kafka.ssl_keyfile" in line


@pytest.mark.parametrize("tls_server", [("127.0.0.1", True)], indirect=True)
def test_a_client_certificate_gets_past_tls(
    tls_server: TlsServer, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "_ANSWER_S", 0.2)
    line = over_tls(tls_server.address, ssl_cafile=authority, ssl_certfile=authority.parent / "server.pem")
    assert "does not answer as a Kafka broker" in line


def test_a_plain_client_at_a_tls_port_is_told(tls_server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_ANSWER_S", 0.2)
    (line,) = wait(KafkaConfig(bootstrap=tls_server.address), reports=1)
    assert "speaks TLS: kafka.security_protocol must be SSL or SASL_SSL for this port, got PLAINTEXT" in line


def test_a_file_that_is_no_certificate_is_told(tls_server: TlsServer, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nonsense")
    line = over_tls(tls_server.address, ssl_cafile=path)
    assert f"kafka.ssl_cafile must name a file of certificates in PEM form, got {path}" in line


@pytest.mark.usefixtures("impatient")
def test_tries_that_fail_leave_no_thread_behind(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_FIRST_BACKOFF_S", 0.0)
    before = threading.active_count()
    wait(KafkaConfig(bootstrap=f"127.0.0.1:{silent_port}"), reports=3)
    assert threading.active_count() <= before


@pytest.mark.parametrize("spent_s", [2.5, 2.94, 2.96, 2.9999, 3.5])
def test_a_try_that_cannot_connect_before_its_time_is_over_is_not_made(
    monkeypatch: pytest.MonkeyPatch, spent_s: float
) -> None:
    clock, given = [0.0], []

    def probe(settings: object, timeout_s: float, connect_s: float, *, everywhere: bool) -> Failure:
        given.append(timeout_s)
        clock[0] += spent_s
        return Failure(OSError("silent"))

    monkeypatch.setattr(diagnosis, "probe", probe)
    monkeypatch.setattr(diagnosis, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: None))
    assert diagnosis._kafka_failure({}, everywhere=False) is not None
    assert given[0] == diagnosis._ANSWER_S
    assert all(each_s >= diagnosis._PAUSE_S for each_s in given)
    assert len(given) == (2 if spent_s < diagnosis._ANSWER_S - diagnosis._PAUSE_S else 1)


def secured(bootstrap: str) -> KafkaConfig:
    return KafkaConfig(
        bootstrap=bootstrap,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="user",
        sasl_password=SecretStr("secret"),
    )


def test_settings_hold_every_address_and_the_credentials() -> None:
    settings = connection_settings(secured("a:1,b:2"))
    assert settings["bootstrap_servers"] == ["a:1", "b:2"]
    assert settings["security_protocol"] == "SASL_PLAINTEXT"
    names = ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
    assert [settings[name] for name in names] == ["PLAIN", "user", "secret"]


def test_settings_hold_the_files_of_tls(authority: Path) -> None:
    key = authority.parent / "server.key"
    config = KafkaConfig(
        security_protocol="SSL",
        ssl_cafile=authority,
        ssl_certfile=authority,
        ssl_keyfile=key,
        ssl_check_hostname=False,
    )
    settings = connection_settings(config)
    names = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
    assert [settings[name] for name in names] == [str(authority), str(authority), str(key), False]


TLS, SASL = "SSL or SASL_SSL", "SASL_PLAINTEXT or SASL_SSL"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SECURITY_PROTOCOL": "SASL_SSL"}, "sasl_mechanism is not set"),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "PLAIN"}, "sasl_username is not set"),
        (
            {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "PLAIN", "SASL_USERNAME": "u"},
            "sasl_mechanism and sasl_username and sasl_password (PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512),"
            " sasl_password is not set",
        ),
        ({"SASL_PASSWORD": "secret"}, f"must be {SASL} where sasl_password is set"),
        ({"SASL_MECHANISM": "PLAIN", "SECURITY_PROTOCOL": "SSL"}, f"must be {SASL} where sasl_mechanism is set"),
        ({"SSL_CAFILE": __file__}, f"must be {TLS} where ssl_cafile is set"),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_KEYFILE": __file__}, "needs ssl_certfile where ssl_keyfile is set"),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_CAFILE": "/absent.pem"}, "kafka.ssl_cafile: must name a file"),
    ],
)
def test_security_settings_that_do_not_fit_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OUSEL_KAFKA__{name}", value)
    with pytest.raises(ConfigError) as raised:
        load_config()
    assert said in str(raised.value)
    assert "kafka.s" in str(raised.value)
    assert "secret" not in str(raised.value)
