from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import Config, ConfigError, ServingConfig
from engine.security import exposure
from engine.security.exposure import check_exposure, on_loopback, warn_of_exposure


def config(host: str, **sections: object) -> Config:
    insecure = bool(sections.pop("insecure", False))
    return Config(serving=ServingConfig(host=host, insecure=insecure), **sections)


@pytest.fixture
def with_authorities(tmp_path: Path) -> dict[str, object]:
    """Mutual TLS, by files that are only named here."""
    for name in ("a.crt", "a.key", "ca.crt"):
        (tmp_path / name).touch()
    files = {"certificate": "a.crt", "key": "a.key", "client_authorities": "ca.crt"}
    return {"tls": {name: tmp_path / file for name, file in files.items()}}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "nowhere.invalid"])
def test_an_engine_that_others_can_reach_and_that_asks_nobody_is_refused(host):
    with pytest.raises(ConfigError) as error:
        check_exposure(config(host))
    assert str(error.value).startswith(
        "serving.host: must be on the loopback while neither security.tokens_file nor tls.client_authorities is set,"
        f" got {host!r}"
    )
    assert "serving.insecure = true" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_the_loopback_nothing_is_asked_or_said(host, caplog):
    check_exposure(config(host))
    warn_of_exposure(config(host))
    assert not caplog.records


def test_tokens_or_mutual_tls_are_enough(with_authorities, tmp_path, caplog):
    check_exposure(config("0.0.0.0", security={"tokens_file": tmp_path / "tokens"}))
    check_exposure(config("0.0.0.0", **with_authorities))
    warn_of_exposure(config("0.0.0.0", **with_authorities))
    assert not caplog.records


def test_a_certificate_of_the_engine_alone_is_not_enough(with_authorities):
    tls = dict(with_authorities["tls"])
    del tls["client_authorities"]
    with pytest.raises(ConfigError):
        check_exposure(config("0.0.0.0", tls=tls))


def test_being_insecure_on_purpose_is_said_loudly_at_each_start(caplog):
    insecure = config("0.0.0.0", insecure=True)
    check_exposure(insecure)
    warn_of_exposure(insecure)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("SERVING WITHOUT CREDENTIALS on 0.0.0.0: whoever reaches the port can")


def test_tokens_that_travel_unencrypted_are_warned_of(caplog, tmp_path):
    warn_of_exposure(config("0.0.0.0", security={"tokens_file": tmp_path / "tokens"}))
    assert "tokens reach 0.0.0.0 unencrypted" in caplog.text


def test_a_name_is_on_the_loopback_where_all_its_addresses_are(monkeypatch):
    def addresses(*found: str):
        return lambda *_, **__: [(0, 0, 0, "", (address, 0)) for address in found]

    monkeypatch.setattr(exposure.socket, "getaddrinfo", addresses("127.0.0.1", "::1"))
    assert on_loopback("engine.internal")
    monkeypatch.setattr(exposure.socket, "getaddrinfo", addresses("127.0.0.1", "192.0.2.1"))
    assert not on_loopback("engine.internal")
