"""The ways in which a client may reach an engine. What holds of who may call must hold over each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from deploy.local.certificates import issue_certificate, issue_certificates


@dataclass(frozen=True)
class Transport:
    """How an engine is reached.

    Attributes:
        sections: of the engine's configuration, given the folder of `certificates`.
        credentials: of a client, given the same folder; None where the transport knows none.
    """

    name: str
    sections: Callable[[Path], dict[str, Any]]
    credentials: Callable[[Path], grpc.ChannelCredentials | None]


def certificates(folder: Path) -> Path:
    """A folder with an authority, and its certificates for the engine and for a client."""
    issue_certificates(folder)
    issue_certificate(folder, "client", "shop")
    return folder


def _tls(folder: Path, **more: Path) -> dict[str, Any]:
    return {"tls": {"certificate": folder / "server.crt", "key": folder / "server.key", **more}}


def _trusting(folder: Path, *names: str) -> grpc.ChannelCredentials:
    authority, *own = ((folder / name).read_bytes() for name in ("ca.pem", *names))
    return grpc.ssl_channel_credentials(authority, *own)


PLAINTEXT = Transport("plaintext", lambda folder: {}, lambda folder: None)
TLS = Transport("TLS", _tls, _trusting)
MUTUAL_TLS = Transport(
    "mutual TLS",
    lambda folder: _tls(folder, client_authorities=folder / "ca.pem"),
    lambda folder: _trusting(folder, "client.key", "client.crt"),
)

TRANSPORTS = (PLAINTEXT, TLS, MUTUAL_TLS)
