"""How a client shows who it is, and checks who answers: certificates and a token, from files."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from ousel.arguments import flag, text
from ousel.errors import InvalidArgument

_visible = re.compile(r"[\x21-\x7e]+").fullmatch
_AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Credentials:
    """Files and a token for `Client` and `AsyncClient`.

    A client speaks TLS where `authorities`, `certificate` or `tls` is given. A token goes out in plain text to the
    loopback only, unless `insecure` says otherwise.

    Attributes:
        authorities: PEM file of the authorities that sign the engines' certificates; None: the public ones.
        certificate: PEM file of the client's own certificate, for engines that ask for one (mutual TLS).
        key: PEM file of its key.
        token_file: file with a token, which is read again when it changes.
        token: the token itself, where it lies in no file.
        server_name: the name in the engines' certificates, where it is not the one that they are reached by.
        tls: True for TLS where no file is needed for it.
        insecure: True to send a token in plain text beyond the loopback, where anybody on the way can read it.

    Raises:
        InvalidArgument: a value of a wrong type, a key without its certificate or the reverse, or two tokens.
    """

    authorities: _AnyPath | None = None
    certificate: _AnyPath | None = None
    key: _AnyPath | None = None
    token_file: _AnyPath | None = None
    token: str | None = field(default=None, repr=False)
    server_name: str | None = None
    tls: bool = False
    insecure: bool = False

    def __post_init__(self) -> None:
        for name in ("authorities", "certificate", "key", "token_file"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (str, os.PathLike)) and str(value)):
                raise InvalidArgument(f"{name} must be the path of a file, or None, got a {type(value).__name__}")
        for name in ("tls", "insecure"):
            flag(name, getattr(self, name))
        if self.server_name is not None:
            text("server_name", self.server_name)
        if (self.certificate is None) != (self.key is None):
            given, missing = ("certificate", "key") if self.key is None else ("key", "certificate")
            raise InvalidArgument(f"{given} needs {missing}, the file of the other half")
        if self.token is not None and self.token_file is not None:
            raise InvalidArgument("only one of token and token_file may be given")
        if self.token is not None:
            _checked_token("token", self.token)

    @property
    def encrypted(self) -> bool:
        """Whether calls go over TLS."""
        return self.tls or self.authorities is not None or self.certificate is not None

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """The credentials of a gRPC channel; None for a channel in plain text.

        Raises:
            InvalidArgument: a file can't be read.
        """
        if not self.encrypted:
            return None
        contents = {name: _content(name, getattr(self, name)) for name in ("authorities", "key", "certificate")}
        return grpc.ssl_channel_credentials(contents["authorities"], contents["key"], contents["certificate"])

    def check(self, hosts: Sequence[str]) -> None:
        """Refuses to send a token in plain text to any of the hosts that is beyond the loopback.

        Raises:
            InvalidArgument: names the host.
        """
        if self.encrypted or self.insecure or (self.token is None and self.token_file is None):
            return
        for host in hosts:
            if not is_loopback(host):
                raise InvalidArgument(
                    f"a token would go to {host} in plain text, where anybody on the way can read it: give authorities"
                    " or tls=True for TLS, or insecure=True to send it all the same"
                )


class Bearer:
    """The metadata that carries a token. Any thread may ask for it.

    Raises:
        InvalidArgument: the file can't be read, or holds no token.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._file = None if credentials.token_file is None else Path(credentials.token_file)
        self._stamp: tuple[int, int, int] | None = None
        self._metadata = None if credentials.token is None else _metadata(credentials.token)
        if self._file is not None:
            self._stamp, self._metadata = _stamp(self._file), _metadata(_read_token(self._file))

    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """For one call; None where there is no token. While a changed file can't be used, the token before is sent."""
        if self._file is not None:
            try:
                stamp = _stamp(self._file)
                if stamp != self._stamp:
                    self._metadata, self._stamp = _metadata(_read_token(self._file)), stamp
            except InvalidArgument:
                pass
        return self._metadata


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that nobody else can read what goes to it."""
    host = host.strip("[]")
    if host == "localhost" or host.startswith(("unix:", "unix-abstract:")):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _checked_token(name: str, value: str) -> str:
    # No error shows the value: it is a secret.
    if not isinstance(value, str) or not _visible(value):
        raise InvalidArgument(f"{name} must be a text of visible ASCII characters without spaces")
    return value


def _read_token(file: Path) -> str:
    return _checked_token("the token in token_file", _bytes("token_file", file).decode("ascii", "replace").strip())


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        found = file.expanduser().stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable("token_file", file, error) from None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _content(name: str, path: _AnyPath | None) -> bytes | None:
    return None if path is None else _bytes(name, Path(path))


def _bytes(name: str, file: Path) -> bytes:
    try:
        return file.expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(name, file, error) from None


def _unreadable(name: str, file: Path, error: Exception) -> InvalidArgument:
    why = getattr(error, "strerror", None) or error
    # A token may have been given in place of its file. What looks like no path is not shown.
    shown = f", got {str(file)!r}" if name != "token_file" or _is_in_a_folder(file) else ""
    return InvalidArgument(f"{name} must name a file that can be read{shown} ({why})")


def _is_in_a_folder(file: Path) -> bool:
    try:
        return len(file.parts) > 1 and file.expanduser().parent.is_dir()
    except (OSError, RuntimeError, ValueError):
        return False
