"""The engine's certificate, read again whenever its files change: gRPC and the metrics port show the newest good one.

New files are used only once they have served a connection in memory. A file that is half-written, a key that belongs to
another certificate or one that is gone leaves the certificate before it in force.
"""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from engine import metrics
from engine.certificate_times import validity
from engine.config import ConfigError, TlsConfig
from engine.failures import told

_log = logging.getLogger(__name__)

_X509_V_FLAG_NO_CHECK_TIME = 0x200000  # OpenSSL's; Python has no name for it


class CertificateError(ConfigError):
    """The files make no certificate that can be shown; the message is one line that names setting and file."""


@dataclass(frozen=True)
class _Files:
    """What stood in the files at one moment."""

    certificate: bytes
    key: bytes
    client_authorities: bytes | None


@dataclass(frozen=True)
class _InForce:
    """A certificate that has served a connection in memory."""

    files: _Files
    context: ssl.SSLContext
    grpc: grpc.ServerCertificateConfiguration


class Certificates:
    """Holds what is in force. Any thread may ask; one thread at a time reloads.

    Args:
        config: must name a certificate and its key.

    Raises:
        CertificateError: the files can't be used.
    """

    def __init__(self, config: TlsConfig) -> None:
        assert config.certificate is not None and config.key is not None
        self._config = config
        self._certificate, self._key = config.certificate, config.key
        self._lock = threading.Lock()
        self._refused: object = None  # what stood in the files, or why they couldn't be read, when they were refused
        self._in_force = self._made(self._read())
        self._shown = self._in_force  # to gRPC

    def reload(self) -> None:
        """Reads the files, and has what they hold in force from the next connection on; else says once why not."""
        with self._lock:
            seen: object = None
            try:
                files = self._read()
                if files == self._in_force.files:
                    self._refused = None
                    return
                seen = files
                self._in_force = self._made(files)
            except Exception as error:  # Whatever the files hold, the next change of theirs is looked at.
                seen = seen or str(error)
                if seen != self._refused:
                    metrics.CERTIFICATE_RELOAD_FAILURES.inc()
                    _log.error("the certificate before stays in force, because the new files can't be used: %s", error)
                self._refused = seen
                return
            self._refused = None
        _log.info("a new certificate from %s is shown from now on", self._certificate)

    def context(self) -> ssl.SSLContext:
        """What the next connection to the metrics port is served with."""
        return self._in_force.context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """The credentials of a gRPC port, which ask for the certificate in force at each new connection."""
        return grpc.dynamic_ssl_server_credentials(
            self._in_force.grpc,
            self._changed,  # type: ignore[arg-type]  # gRPC takes None for no change, and its stubs do not say so
            require_client_authentication=self._config.client_authorities is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC, one connection at a time; None has it show the same as before."""
        newest = self._in_force
        if newest is self._shown:
            return None
        self._shown = newest
        return newest.grpc

    def _read(self) -> _Files:
        authorities = self._config.client_authorities
        return _Files(
            _content("tls.certificate", self._certificate),
            _content("tls.key", self._key),
            None if authorities is None else _content("tls.client_authorities", authorities),
        )

    def _made(self, files: _Files) -> _InForce:
        context = self._server_context()
        # The context reads the files itself. What gRPC shows must be the same.
        if files != self._read():
            raise CertificateError(f"tls.certificate: {self._certificate} or another file of tls is being written")
        _serve_in_memory(context, files.certificate, f"tls.certificate: {self._certificate}")
        if files.client_authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        metrics.CERTIFICATE_EXPIRY.set(_expiry_s(files.certificate, f"tls.certificate: {self._certificate}"))
        shown = grpc.ssl_server_certificate_configuration([(files.key, files.certificate)], files.client_authorities)
        return _InForce(files, context, shown)

    def _server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # OpenSSL would ask for the passphrase on the terminal, and gRPC knows none.
            context.load_cert_chain(self._certificate, self._key, password=_no_passphrase)
        except (ssl.SSLError, OSError, ValueError) as error:
            files = (
                f"tls.certificate must be a PEM file whose key is in tls.key, got {self._certificate} and {self._key}"
            )
            raise CertificateError(f"{files} ({told(error)})") from None
        authorities = self._config.client_authorities
        if authorities is not None:
            try:
                context.load_verify_locations(authorities)
            except (ssl.SSLError, OSError) as error:
                raise CertificateError(
                    f"tls.client_authorities must be a PEM file of certificates, got {authorities} ({told(error)})"
                ) from None
        return context


def _no_passphrase() -> str:
    raise ValueError("the key must not be protected by a passphrase")


def _content(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{setting} must name a file that can be read, got {path} ({told(error)})") from None


def _expiry_s(certificate: bytes, name: str) -> float:
    """The end of the certificate that ends first, in seconds since 1970."""
    try:
        return min(end for _, end in validity(certificate.decode("ascii", "replace")))
    except (ValueError, IndexError):
        raise CertificateError(f"{name} holds no certificate in PEM form") from None


def _serve_in_memory(context: ssl.SSLContext, certificate: bytes, name: str) -> None:
    """Serves one connection in memory.

    The peer trusts this very certificate, whether or not it is over: one that is over is shown as well, because clients
    then say what is wrong.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _X509_V_FLAG_NO_CHECK_TIME
    try:
        client.load_verify_locations(cadata=certificate.decode("ascii", "ignore"))
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = context.wrap_bio(to_server, to_client, server_side=True)
        theirs = client.wrap_bio(to_client, to_server)
        for side in (theirs, ours, theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        if theirs.version() is None:
            raise ssl.SSLError("the handshake did not end")
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(f"{name} holds no certificate of a server ({told(error)})") from None
