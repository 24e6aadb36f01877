from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from deploy.local.certificates import issue_certificates
from engine.checks.certificates import (
    CertificateFile,
    look_at_certificates,
    look_at_kafka_certificates,
    look_at_tls_certificates,
)
from engine.config import KafkaConfig, TlsConfig

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")

DAY_S = 86_400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    issue_certificates(folder)
    return folder


def found(path: Path, key: Path | None = None) -> tuple[str, str]:
    (one,) = look_at_certificates(CertificateFile("tls.certificate", path, key))
    return one.level.value, one.message


def test_a_certificate_that_goes_with_its_key_is_ok(folder: Path) -> None:
    level, line = found(folder / "server.pem", folder / "server.pem")
    assert level == "ok" and f"tls.certificate {folder / 'server.pem'} is valid until 2" in line


@pytest.mark.parametrize(
    ("days", "level", "said"),
    [
        (-1, "error", "is not valid before"),
        (20, "warning", "expires on"),
        (31, "error", "has expired on"),
    ],
)
def test_time_decides_on_a_certificate(
    days: int, level: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time() + days * DAY_S
    monkeypatch.setattr("engine.checks.certificates.time.time", lambda: now_s)
    got, line = found(folder / "server.crt")
    assert got == level and said in line


def test_a_certificate_that_has_expired_is_an_error(folder: Path) -> None:
    command = ["openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "-1"]
    subprocess.run([*command, "-out", "over.crt"], cwd=folder, capture_output=True, check=True)
    level, line = found(folder / "over.crt", folder / "server.key")
    assert level == "error" and "has expired on" in line and "renew it" in line


def test_a_key_of_another_certificate_is_an_error(folder: Path) -> None:
    level, line = found(folder / "server.crt", folder / "ca.key")
    assert level == "error" and f"the key in {folder / 'ca.key'} don't belong together" in line


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_a_certificate_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text(text)
    level, line = found(tmp_path / "x.pem")
    assert level == "error" and "holds no certificate in PEM form" in line


def test_the_files_of_the_section_kafka_are_looked_at(folder: Path) -> None:
    config = KafkaConfig(
        security_protocol="SSL", ssl_cafile=folder / "ca.pem", ssl_certfile=folder / "server.crt",
        ssl_keyfile=folder / "ca.key",
    )  # fmt: skip
    assert [one.level for one in look_at_kafka_certificates(config)] == ["ok", "error"]
    assert list(look_at_kafka_certificates(KafkaConfig())) == []


def test_what_callers_of_the_engine_are_shown_is_looked_at(folder: Path) -> None:
    config = TlsConfig(
        certificate=folder / "server.crt", key=folder / "server.key", client_authorities=folder / "ca.pem"
    )
    first, second = look_at_tls_certificates(config)
    assert f"tls.certificate {folder / 'server.crt'} is valid until" in first.message
    assert f"tls.client_authorities {folder / 'ca.pem'} is valid until" in second.message
    assert not list(look_at_tls_certificates(TlsConfig()))
