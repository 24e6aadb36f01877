"""Certificates from files that change: what is in force, and what a file that can't be used costs."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

import pytest

from deploy.local.certificates import issue_certificate, issue_certificates
from engine import metrics
from engine.config import TlsConfig
from engine.serving.certificates import CertificateError, Certificates

DAY_S = 86_400


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `server`, `renewed` and `over`, each as .crt, .key and .pem."""
    folder = tmp_path_factory.mktemp("issued") / "tls"
    issue_certificates(folder)
    issue_certificate(folder, "renewed", "localhost", days=90)
    issue_certificate(folder, "over", "localhost", days=-1)
    return folder


@pytest.fixture
def files(issued: Path, tmp_path: Path) -> TlsConfig:
    shutil.copy(issued / "server.crt", tmp_path / "cert.pem")
    shutil.copy(issued / "server.key", tmp_path / "key.pem")
    return TlsConfig(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")


def expires_in_days() -> int:
    return round((metrics.CERTIFICATE_EXPIRY._value.get() - time.time()) / DAY_S)


def failures() -> float:
    return metrics.CERTIFICATE_RELOAD_FAILURES._value.get()


def replace(files: TlsConfig, issued: Path, name: str) -> None:
    shutil.copy(issued / f"{name}.crt", files.certificate)
    shutil.copy(issued / f"{name}.key", files.key)


def test_what_is_in_force_tells_when_it_ends(files, issued):
    certificates = Certificates(files)
    assert expires_in_days() == 30
    before = certificates.context()
    certificates.reload()
    assert certificates.context() is before
    assert certificates._changed() is None
    replace(files, issued, "renewed")
    certificates.reload()
    assert expires_in_days() == 90
    assert certificates.context() is not before
    assert certificates._changed() is not None
    assert certificates._changed() is None


def test_one_that_is_over_is_shown_because_clients_say_what_is_wrong(files, issued):
    replace(files, issued, "over")
    Certificates(files)
    assert expires_in_days() == -1


def test_one_file_that_holds_both_will_do(issued):
    Certificates(TlsConfig(certificate=issued / "server.pem", key=issued / "server.pem"))


@pytest.mark.parametrize("damage", ["half a certificate", "no certificate", "another key", "gone"])
def test_a_file_that_cannot_be_used_leaves_the_one_before_in_force(damage, files, issued, caplog):
    certificates = Certificates(files)
    before, failed = certificates.context(), failures()
    match damage:
        case "half a certificate":
            files.certificate.write_bytes((issued / "renewed.crt").read_bytes()[:300])
        case "no certificate":
            files.certificate.write_text("hello")
        case "another key":
            shutil.copy(issued / "renewed.key", files.key)
        case "gone":
            files.key.unlink()
    for _ in range(3):
        certificates.reload()
    assert certificates.context() is before
    assert certificates._changed() is None
    assert expires_in_days() == 30
    assert failures() == failed + 1
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1
    assert str(files.certificate if damage != "gone" else files.key) in said[0]
    # Whatever it was, what is good again is in force.
    replace(files, issued, "renewed")
    certificates.reload()
    assert expires_in_days() == 90
    assert failures() == failed + 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": "renewed.key"}, r"tls.certificate must be a PEM file whose key is in tls.key, got .*server.crt and "),
        ({"certificate": "ca.key"}, r"tls.certificate must be a PEM file whose key is in tls.key, got .*ca.key and "),
        (
            {"client_authorities": "server.key"},
            r"tls.client_authorities must be a PEM file of certificates, got .*key ",
        ),
    ],
)
def test_a_start_with_files_that_cannot_be_used_says_which(change, said, issued):
    names = {"certificate": "server.crt", "key": "server.key", **change}
    with pytest.raises(CertificateError, match=said) as refused:
        Certificates(TlsConfig(**{name: issued / file for name, file in names.items()}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("header", ["TRUSTED CERTIFICATE", "X509 CERTIFICATE"])
def test_a_certificate_under_another_header_is_refused_in_one_line(header, issued, tmp_path):
    other = tmp_path / "other.crt"
    other.write_text((issued / "server.crt").read_text().replace(" CERTIFICATE-", f" {header}-"))
    with pytest.raises(CertificateError, match=r"tls.certificate: .*other.crt holds no certificate") as refused:
        Certificates(TlsConfig(certificate=other, key=issued / "server.key"))
    assert "\n" not in str(refused.value)


def test_a_certificate_that_no_client_would_take_from_a_server_is_refused_before_it_is_shown(files, issued):
    certificates = Certificates(files)
    shutil.copy(issued / "ca.pem", files.certificate)  # good for signing others alone
    shutil.copy(issued / "ca.key", files.key)
    failed = failures()
    certificates.reload()
    assert failures() == failed + 1 and certificates._changed() is None
    with pytest.raises(CertificateError, match=r"tls.certificate: .*cert.pem holds no certificate of a server"):
        Certificates(files)
