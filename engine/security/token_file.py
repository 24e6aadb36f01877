"""The tokens file, followed: what changes in it counts within two looks, and a damaged file changes nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from engine import metrics
from engine.config import ConfigError
from engine.failures import told
from engine.security.errors import Unauthenticated
from engine.security.tokens import Token, TokenLineError, Tokens, parse_tokens

POLL_S = 0.5  # from one look at the file to the next
_MAX_BYTES = 8 * 2**20
_SCHEME = "bearer "

_log = logging.getLogger(__name__)

# Device, inode, time and size. A file that was put in place of another has another inode, whatever its time.
Signature = tuple[int, int, int, int]


class TokenFile:
    """The tokens that are in force.

    Construction reads the file; each `poll` looks whether it is another one by now. Any thread may read `in_force`.

    Raises:
        ConfigError: the file can't be read, or is wrong; the message names the setting, the file and the line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problem: str | None = None
        try:
            self._read_as, self.in_force = self._read()
        except (OSError, TokenLineError) as error:
            raise ConfigError(f"security.tokens_file: {self._said(error)}") from None
        self._seen = self._read_as
        self._warn_of_writers()
        metrics.TOKENS.set(len(self.in_force))
        self._is_well()

    def poll(self) -> bool:
        """Looks at the file; whether other tokens are in force now. Blocks for as long as the disk takes."""
        try:
            signature = _signature(self._path.stat())
            if signature == self._read_as:
                self._is_well()
                return False
            if signature == self._seen:
                signature, tokens = self._read()
            if signature != self._seen:
                # It may be half written: whoever does not put a whole file in its place gets until the next look.
                self._seen = signature
                return False
        except (OSError, TokenLineError) as error:
            self._tell(self._said(error))
            return False
        self._read_as, self.in_force = signature, tokens
        self._is_well()
        self._warn_of_writers()
        metrics.TOKENS.set(len(self.in_force))
        _log.info("%d tokens of %s are in force", len(self.in_force), self._path)
        return True

    def presented(self, authorization: Sequence[str | bytes]) -> Token:
        """The token that a call brings.

        Args:
            authorization: the values of the header of this name, one for each time that it was sent.

        Raises:
            Unauthenticated: it brings none, or one that does not count.
        """
        if not authorization:
            raise Unauthenticated("missing")
        header = authorization[0]
        # With two headers, a proxy may have looked at the other one.
        if len(authorization) > 1 or not isinstance(header, str) or header[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated("malformed")
        token = self.in_force.of(header[len(_SCHEME) :])
        if token is None:
            raise Unauthenticated("wrong")
        if token.expires_s <= time.time():
            raise Unauthenticated("expired")
        return token

    def _read(self) -> tuple[Signature, Tokens]:
        with self._path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
            signature = _signature(os.fstat(file.fileno()))
        if len(data) > _MAX_BYTES:
            raise TokenLineError(f"it must have at most {_MAX_BYTES} bytes")
        try:
            return signature, parse_tokens(data.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise TokenLineError("it must be text in UTF-8") from None

    def _said(self, error: OSError | TokenLineError) -> str:
        return f"{self._path}, {error}" if isinstance(error, TokenLineError) else told(error)

    def _is_well(self) -> None:
        metrics.TOKENS_FILE_PROBLEM.set(0)
        self._problem = None

    def _tell(self, problem: str) -> None:
        """Says once what is wrong with the file as it is now."""
        metrics.TOKENS_FILE_PROBLEM.set(1)
        if problem != self._problem:
            _log.error("the tokens file can't be used, and the tokens of before stay in force: %s", problem)
        self._problem = problem

    def _warn_of_writers(self) -> None:
        mode = self._path.stat().st_mode & 0o777
        if mode & 0o022:
            _log.warning(
                "others may write to the tokens file %s (mode %04o), and whoever may can give themselves every role",
                self._path, mode,
            )  # fmt: skip


def _signature(stat: os.stat_result) -> Signature:
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
