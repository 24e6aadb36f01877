"""Are certificates valid now and for a while, and do they go with their keys?"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from engine.certificate_times import validity
from engine.checks.finding import Finding, error, ok, warning
from engine.config import KafkaConfig, TlsConfig
from engine.failures import told

_DAY_S = 86_400
_SOON_S = 14 * _DAY_S  # long enough to renew one by hand


class CertificateFile(NamedTuple):
    """A file of certificates that a setting names, and the one of the key where there is one."""

    setting: str
    path: Path
    key: Path | None = None


def look_at_kafka_certificates(config: KafkaConfig) -> Iterator[Finding]:
    """The files that the section kafka names; the brokers' own certificates are looked at by connecting."""
    if config.ssl_cafile is not None:
        yield from look_at_certificates(CertificateFile("kafka.ssl_cafile", config.ssl_cafile))
    if config.ssl_certfile is not None:
        key = config.ssl_keyfile or config.ssl_certfile
        yield from look_at_certificates(CertificateFile("kafka.ssl_certfile", config.ssl_certfile, key))


def look_at_tls_certificates(config: TlsConfig) -> Iterator[Finding]:
    """The files that the section tls names, which callers of the engine are shown and checked with."""
    if config.certificate is not None:
        yield from look_at_certificates(CertificateFile("tls.certificate", config.certificate, config.key))
    if config.client_authorities is not None:
        yield from look_at_certificates(CertificateFile("tls.client_authorities", config.client_authorities))


def look_at_certificates(file: CertificateFile) -> Iterator[Finding]:
    """Whether the certificates of a file are valid, and belong to the key; of several the first to end counts."""
    name = f"{file.setting} {file.path}"
    try:
        spans = validity(file.path.read_text("ascii", "replace"))
    except (ValueError, IndexError):
        spans = []
    except OSError as problem:
        yield error(f"{name} can't be read: {told(problem)}")
        return
    if not spans:
        yield error(f"{name} holds no certificate in PEM form: name a file that does")
        return
    if file.key is not None:
        try:
            # Without a passphrase OpenSSL would ask the terminal for one.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file.path, file.key, password="")
        except (OSError, ValueError) as problem:
            yield error(f"{name} and the key in {file.key} don't belong together, or can't be used: {told(problem)}")
            return
    yield _by_time(name, max(begin for begin, _ in spans), min(end for _, end in spans))


def _by_time(name: str, begin_s: float, end_s: float) -> Finding:
    now_s = time.time()
    if end_s <= now_s:
        return error(f"{name} has expired on {_day(end_s)}: renew it, and check this machine's clock")
    if begin_s > now_s:
        return error(f"{name} is not valid before {_day(begin_s)}: check this machine's clock")
    if end_s - now_s < _SOON_S:
        return warning(f"{name} expires on {_day(end_s)}, in {(end_s - now_s) / _DAY_S:.0f} days: renew it")
    return ok(f"{name} is valid until {_day(end_s)}")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
