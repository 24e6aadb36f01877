"""What a user is told who can't get in, and what gets in, against Apache Kafka with TLS and passwords."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.brokers import start_broker
from deploy.local.certificates import issue_certificates
from deploy.local.kafka import ApacheKafka
from engine.checks.finding import Level
from engine.checks.running import run_checks
from engine.checks.table import CHECKS
from engine.config import Config, KafkaConfig
from engine.events.connection import wait_for_broker
from engine.events.kafka import KafkaSource
from engine.events.source import SourceError
from engine.events.topics import ensure_topics

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not os.environ.get("KAFKA_HOME"), reason="the embedded broker has no TLS and no passwords"),
]

USER, PASSWORD = "user", "right-one"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    with start_broker(tmp_path_factory.mktemp("secured"), tls=True, sasl=(USER, PASSWORD)) as running:
        assert isinstance(running, ApacheKafka)
        yield running


def problem(broker: ApacheKafka, **changes: Any) -> str:
    """The one line that the user sees; also that no source comes into being, for the same reason."""
    fields = {key: value for key, value in (broker.client_settings() | changes).items() if value is not None}
    config = KafkaConfig(**fields, request_timeout_ms=2000)
    stop = threading.Event()
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        stop.set()

    assert not wait_for_broker(config, stop, report)
    (line,) = lines
    with pytest.raises(SourceError) as raised:
        KafkaSource(config)
    assert line.partition(":")[0] in str(raised.value)
    assert "\n" not in line
    assert "right-one" not in line and "wrong-one" not in line
    return line


def test_the_right_settings_get_in(secured: ApacheKafka) -> None:
    config = KafkaConfig(**secured.client_settings())
    assert wait_for_broker(config, threading.Event(), pytest.fail)
    ensure_topics(config)
    KafkaSource(config).close()


@pytest.mark.parametrize("changes", [{"sasl_password": "wrong-one"}, {"sasl_username": "nobody"}])
def test_a_refused_password_is_told(secured: ApacheKafka, changes: dict[str, str]) -> None:
    line = problem(secured, **changes)
    user = changes.get("sasl_username", USER)
    assert line.startswith(f"{secured.bootstrap} refuses kafka.sasl_username='{user}': check it, kafka.sasl_password")


def test_the_check_before_a_start_names_a_refused_password_and_asks_nothing_more(secured: ApacheKafka) -> None:
    wrong = KafkaConfig(**(secured.client_settings() | {"sasl_password": "wrong-one"}))
    lines = {line.check: line for line in run_checks(CHECKS, Config(kafka=wrong))}
    assert lines["brokers"].level == Level.ERROR
    assert lines["brokers"].message.startswith(f"{secured.bootstrap} refuses kafka.sasl_username='{USER}': check it")
    assert {lines[name].level for name in ("topics", "permissions", "clock", "snapshots")} == {Level.SKIPPED}
    assert all("wrong-one" not in line.message for line in lines.values())


def test_a_mechanism_that_is_not_offered_is_told(secured: ApacheKafka) -> None:
    # The reason may be lost behind the hang-up; what to check is the same.
    assert "kafka.sasl_mechanism=SCRAM-SHA-256" in problem(secured, sasl_mechanism="SCRAM-SHA-256")


def test_another_authority_is_told(secured: ApacheKafka, tmp_path: Path) -> None:
    other = issue_certificates(tmp_path / "other")
    line = problem(secured, ssl_cafile=other)
    assert f"is not signed by an authority of kafka.ssl_cafile={other}" in line
    assert line.rpartition("; next try")[0].endswith("check kafka.ssl_cafile")


def test_an_authority_that_is_not_set_is_told(secured: ApacheKafka) -> None:
    assert "kafka.ssl_cafile is not set" in problem(secured, ssl_cafile=None)


def test_an_unreachable_address_is_told(secured: ApacheKafka) -> None:
    other = secured.bootstrap.replace("127.0.0.1", "127.0.0.2")  # it listens on the first alone
    assert problem(secured, bootstrap=other).startswith(f"no Kafka broker at {other}: check kafka.bootstrap")


def test_a_plain_client_at_a_tls_port_is_told(secured: ApacheKafka) -> None:
    line = problem(
        secured,
        security_protocol="PLAINTEXT",
        **dict.fromkeys(["ssl_cafile", "sasl_mechanism", "sasl_username", "sasl_password"]),
    )
    assert "speaks TLS: kafka.security_protocol must be SSL or SASL_SSL for this port, got PLAINTEXT" in line


def test_sasl_without_tls_at_a_tls_port_is_told(secured: ApacheKafka) -> None:
    line = problem(secured, security_protocol="SASL_PLAINTEXT", ssl_cafile=None)
    assert "speaks TLS: kafka.security_protocol must be SSL or SASL_SSL for this port, got SASL_PLAINTEXT" in line


def test_a_client_without_a_password_is_told(secured: ApacheKafka) -> None:
    line = problem(
        secured, security_protocol="SSL", **dict.fromkeys(["sasl_mechanism", "sasl_username", "sasl_password"])
    )
    assert "hangs up on a client without a password: it may want kafka.security_protocol=SASL_SSL" in line


def test_tls_and_passwords_at_a_plain_port_are_told(tmp_path: Path, secured: ApacheKafka) -> None:
    with start_broker(tmp_path) as plain:
        assert isinstance(plain, ApacheKafka)
        sasl = {"sasl_mechanism": "PLAIN", "sasl_username": USER, "sasl_password": PASSWORD}
        line = problem(plain, security_protocol="SASL_PLAINTEXT", **sasl)
        assert f"{plain.bootstrap} wants no SASL" in line
        line = problem(plain, security_protocol="SASL_SSL", ssl_cafile=secured.ca_path, **sasl)
        assert f"{plain.bootstrap} does not speak TLS" in line
        assert "check the port and kafka.security_protocol=SASL_SSL" in line
