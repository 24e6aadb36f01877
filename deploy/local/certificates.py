"""A throw-away authority, and a certificate of it for a server on the loopback; by the `openssl` command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_DAYS = "30"


class CertificateError(RuntimeError):
    """Certificates can't be made; the message says what to check."""


def issue_certificates(folder: Path) -> Path:
    """Makes an authority and a server's certificate for localhost and 127.0.0.1, unless the folder has them.

    Returns:
        `ca.pem`, the authority that clients should trust. `server.pem` beside it has the server's key and certificate.

    Raises:
        CertificateError: there is no `openssl`, or it failed.
    """
    authority = folder / "ca.pem"
    server = folder / "server.pem"
    if authority.exists() and server.exists():
        return authority
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # it will hold private keys
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        folder,
        *("req", "-x509", *key, "-days", _DAYS, "-subj", f"/CN=throw-away authority {folder.parent.name}"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    _openssl(folder, "req", *key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    _openssl(
        folder,
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", _DAYS, "-extfile", "names", "-out", "server.crt"),
    )
    server.write_text((folder / "server.key").read_text() + (folder / "server.crt").read_text())
    return authority


def _openssl(folder: Path, *arguments: str) -> None:
    path = shutil.which("openssl")
    if path is None:
        raise CertificateError("TLS needs the openssl command on the PATH")
    done = subprocess.run([path, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CertificateError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
