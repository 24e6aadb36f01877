from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from deploy.local.certificates import issue_certificates
from engine.certificate_times import validity

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")


def test_the_times_are_those_that_openssl_reads_and_in_the_order_of_the_file(tmp_path: Path) -> None:
    issue_certificates(tmp_path)
    wanted = []
    for name in ("ca.pem", "server.crt"):
        command = ["openssl", "x509", "-noout", "-startdate", "-enddate", "-in", str(tmp_path / name)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
        begin, end = (ssl.cert_time_to_seconds(line.partition("=")[2]) for line in said if line)
        wanted.append((begin, end))
    assert validity((tmp_path / "ca.pem").read_text() + (tmp_path / "server.crt").read_text()) == wanted


def test_what_is_no_certificate_has_no_times() -> None:
    assert validity("") == []
    with pytest.raises(ValueError):
        validity("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
