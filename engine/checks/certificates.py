"""Are certificates valid now and for a while, and do they go with their keys?"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from engine.checks.finding import Finding, error, ok, warning
from engine.config import KafkaConfig, TlsConfig
from engine.failures import told

_DAY_S = 86_400
_SOON_S = 14 * _DAY_S  # long enough to renew one by hand
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


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
        spans = [_validity(found) for found in _PEM.findall(file.path.read_text("ascii", "replace"))]
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


def _validity(pem: str) -> tuple[float, float]:
    """The first and the last second of a certificate, since 1970, out of its ASN.1 form (RFC 5280, section 4.1).

    Python's own library tells them only to a peer that has checked the certificate.

    Raises:
        ValueError, IndexError: it is not in that form.
    """
    outer, _ = _inside(ssl.PEM_cert_to_DER_cert(pem + "\n"), _SEQUENCE)
    signed, _ = _inside(outer, _SEQUENCE)
    if signed[0] == _VERSION:
        _, signed = _inside(signed, _VERSION)
    for _ in ("the serial number", "the algorithm", "the issuer"):
        _, signed = _inside(signed, signed[0])
    times, _ = _inside(signed, _SEQUENCE)
    first, rest = _inside(times, times[0])
    last, _ = _inside(rest, rest[0])
    return _seconds(times[0], first), _seconds(rest[0], last)


def _inside(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the element at the head, and what follows it."""
    if der[0] != tag:
        raise ValueError(f"expected ASN.1 tag {tag:#x}, got {der[0]:#x}")
    size, begin = der[1], 2
    if size & 0x80:
        begin += size & 0x7F
        size = int.from_bytes(der[2:begin], "big")
    return der[begin : begin + size], der[begin + size :]


def _seconds(tag: int, text: bytes) -> float:
    layout = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), layout).replace(tzinfo=UTC).timestamp()
