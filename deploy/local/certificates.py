"""A throw-away authority, and its certificates for servers on the loopback and their clients; by `openssl`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_DAYS = "30"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class CertificateError(RuntimeError):
    """Certificates can't be made; the message says what to check."""


def issue_certificates(folder: Path) -> Path:
    """Makes an authority and a server's certificate for localhost and 127.0.0.1, unless the folder has them.

    Returns:
        `ca.pem`, the authority that clients should trust. Beside it lie the server's `server.key` and `server.crt`,
        and `server.pem` with both.

    Raises:
        CertificateError: there is no `openssl`, or it failed.
    """
    authority = folder / "ca.pem"
    if authority.exists() and (folder / "server.pem").exists():
        return authority
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # it will hold private keys
    _openssl(
        folder,
        *("req", "-x509", *_KEY, "-days", _DAYS, "-subj", f"/CN=throw-away authority {folder.parent.name}"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    issue_certificate(folder, "server", "localhost")
    return authority


def issue_certificate(folder: Path, name: str, subject: str, days: int = int(_DAYS)) -> tuple[Path, Path]:
    """Has the authority of the folder sign a new certificate; whatever stands in its files is replaced.

    Args:
        name: of the files, without their suffix.
        subject: whose certificate it is: a host name of a server, or the name of a client.
        days: until it ends; it has ended already where they are negative.

    Returns:
        The files of the certificate and of its key. A third one, NAME.pem, holds both.

    Raises:
        CertificateError: see `issue_certificates`.
    """
    (folder / "names").write_text(f"subjectAltName=DNS:{subject},IP:127.0.0.1\n")
    key, request, certificate = (folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
    _openssl(folder, "req", *_KEY, "-subj", f"/CN={subject}", "-keyout", key.name, "-out", request.name)
    _openssl(
        folder,
        *("x509", "-req", "-in", request.name, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", str(days), "-extfile", "names", "-out", certificate.name),
    )
    (folder / f"{name}.pem").write_text(key.read_text() + certificate.read_text())
    return certificate, key


def _openssl(folder: Path, *arguments: str) -> None:
    path = shutil.which("openssl")
    if path is None:
        raise CertificateError("TLS needs the openssl command on the PATH")
    done = subprocess.run([path, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CertificateError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
