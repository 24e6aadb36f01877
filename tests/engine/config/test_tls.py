"""The section `tls`: a certificate and its key belong together, and whoever asks for those of clients has one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.config import ConfigError, load_config


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("OUSEL_")]:
        monkeypatch.delenv(name)


def loaded(tmp_path: Path, text: str) -> str:
    """The refusal of a configuration; "" where there is none."""
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).touch()
    file = tmp_path / "ousel.toml"
    file.write_text(text.replace("DIR", str(tmp_path)))
    try:
        load_config(file)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", ""),
        ("[tls]\ncertificate = 'DIR/cert.pem'\nkey = 'DIR/key.pem'\n", ""),
        ("[tls]\ncertificate = 'DIR/cert.pem'\nkey = 'DIR/key.pem'\nclient_authorities = 'DIR/ca.pem'\n", ""),
        (
            "[tls]\ncertificate = 'DIR/cert.pem'\n",
            "tls.key: must name the file of the key where tls.certificate is set",
        ),
        ("[tls]\nkey = 'DIR/key.pem'\n", "tls.key: needs tls.certificate, the file of the certificate that the key"),
        ("[tls]\nclient_authorities = 'DIR/ca.pem'\n", "tls.client_authorities: needs tls.certificate and tls.key"),
        ("[tls]\ncertificate = 'DIR/gone.pem'\nkey = 'DIR/key.pem'\n", "tls.certificate: must name a file that can"),
        ("[serving]\nmetrics_tls = true\n", "serving: metrics_tls needs tls.certificate and tls.key"),
        (
            "[tls]\ncertificate = 'DIR/cert.pem'\nkey = 'DIR/key.pem'\n[serving]\nmetrics_tls = true\n",
            "",
        ),
    ],
)
def test_what_is_missing_is_named(text: str, refusal: str, tmp_path: Path) -> None:
    said = loaded(tmp_path, text)
    assert refusal in said if refusal else said == ""
    assert "\n" not in said
