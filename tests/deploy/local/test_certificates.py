from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from deploy.local.certificates import CertificateError, issue_certificate, issue_certificates


def test_certificates_are_made_once(tmp_path: Path) -> None:
    authority = issue_certificates(tmp_path / "tls")
    content = authority.read_bytes()
    assert issue_certificates(tmp_path / "tls") == authority
    assert authority.read_bytes() == content
    assert authority.parent.stat().st_mode & 0o077 == 0
    # What a server and a client load; tests/engine/events/test_connection.py has them meet.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(authority.parent / "server.pem")
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(authority)


def test_no_openssl_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CertificateError, match="needs the openssl command"):
        issue_certificates(tmp_path / "tls")


def test_an_authority_signs_a_certificate_for_a_client_and_signs_it_again(tmp_path: Path) -> None:
    issue_certificates(tmp_path / "tls")
    certificate, key = issue_certificate(tmp_path / "tls", "client", "shop")
    before = certificate.read_bytes()
    assert issue_certificate(tmp_path / "tls", "client", "shop") == (certificate, key)
    assert certificate.read_bytes() != before
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
