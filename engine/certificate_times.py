"""From when until when certificates are valid, by their own words."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


def validity(pem: str) -> list[tuple[float, float]]:
    """The first and the last second of each certificate of a file, since 1970, in the file's order.

    They are read out of its ASN.1 form (RFC 5280, section 4.1), because Python's own library tells them only to a peer
    that has checked the certificate.

    Raises:
        ValueError, IndexError: one is not in that form.
    """
    return [_span(found) for found in _PEM.findall(pem)]


def _span(pem: str) -> tuple[float, float]:
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
