"""Bearer tokens as the tokens file has them: one a line, with a name, roles, an optional end, and a SHA-256 digest.

    # The shop's backend
    shop roles=recommend,track expires=2027-06-30 sha256=0b6f...

The token itself never stands in the file: 32 random bytes cannot be guessed from their digest.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from engine.security.roles import Role

MAX_TOKENS = 10_000
# Every token begins so, which tells a person what it is, and lets scanners find one that was published by mistake.
PREFIX = "ousel_"
RANDOM_BYTES = 32
_MAX_TOKEN_CHARS = 1024  # A longer text is no token, and is not worth a digest.

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHORT_WORD = re.compile(r"[a-z]{1,16}")  # of a role that is misspelt; a token is longer, and would not be shown
_FORM = "NAME roles=ROLE[,ROLE] [expires=YYYY-MM-DD] sha256=DIGEST"


class TokenLineError(ValueError):
    """A line of a tokens file is wrong; the message says what must be so, and shows nothing that may be a token."""


@dataclass(frozen=True)
class Token:
    """One token that calls may bring.

    Attributes:
        name: of the client that has it; two tokens of one client may share it while one replaces the other.
        digest: SHA-256 of the token.
        expires_s: since 1970; from then on the token counts no more.
    """

    name: str
    roles: frozenset[Role]
    digest: bytes
    expires_s: float = math.inf


class Tokens:
    """The tokens of one reading of the file."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._by_digest = {token.digest: token for token in tokens}

    def __len__(self) -> int:
        return len(self._by_digest)

    def of(self, presented: str) -> Token | None:
        """The token that a text is, expired ones included; None where it is none."""
        if len(presented) > _MAX_TOKEN_CHARS:
            return None
        return self.with_digest(hashlib.sha256(presented.encode()).digest())

    def with_digest(self, digest: bytes) -> Token | None:
        """The token with a digest. The time that this takes tells nothing about the tokens that there are."""
        # What is looked up is a digest, whose bytes a caller cannot choose, and dicts compare by a keyed hash first.
        found = self._by_digest.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest):
            return None
        return found

    def next_expiry_s(self, now_s: float) -> float:
        """When the next token expires, since 1970; infinite where none will."""
        return min((one.expires_s for one in self._by_digest.values() if one.expires_s > now_s), default=math.inf)


def new_token(name: str, roles: Iterable[Role], expires: str | None = None) -> tuple[str, str]:
    """Makes a token; returns it and its line for the file.

    Raises:
        TokenLineError: a value is wrong.
    """
    _check_name(name)
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    end = f" expires={expires}" if expires else ""
    line = f"{name} roles={','.join(roles)}{end} sha256={hashlib.sha256(token.encode()).hexdigest()}"
    parsed = parse_line(line)
    if parsed.expires_s <= time.time():
        raise TokenLineError(f"expires must be in the future, got {expires}")
    return token, line


def parse_tokens(text: str) -> Tokens:
    """Reads the contents of a tokens file.

    Raises:
        TokenLineError: a line is wrong, which the message names by its number, or there is no token at all. A file that
            is being written may be empty for a moment, and must not lock everybody out.
    """
    found: dict[bytes, Token] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        try:
            token = parse_line(line)
        except TokenLineError as error:
            raise TokenLineError(f"line {number}: {error}") from None
        if token.digest in found:
            raise TokenLineError(f"line {number}: the digest must stand in one line, and stands in one before, too")
        found[token.digest] = token
        if len(found) > MAX_TOKENS:
            raise TokenLineError(f"line {number}: there must be at most {MAX_TOKENS} tokens")
    if not found:
        raise TokenLineError("there must be at least one token")
    return Tokens(found.values())


def parse_line(line: str) -> Token:
    """Reads one line of a tokens file.

    Raises:
        TokenLineError: it is wrong.
    """
    name, *fields = line.split()
    given = dict(field.partition("=")[::2] for field in fields)
    if len(given) != len(fields) or not {"roles", "sha256"} <= given.keys() <= {"roles", "sha256", "expires"}:
        raise TokenLineError(f"must be {_FORM}, and the line is not shown")
    _check_name(name)
    if not _DIGEST.fullmatch(given["sha256"]):
        raise TokenLineError(
            "sha256 must be 64 digits of 0-9 and a-f, and is not shown; `ousel-engine token` makes one"
        )
    roles = frozenset(map(_role, given["roles"].split(",")))
    expires_s = _expiry_s(given["expires"]) if "expires" in given else math.inf
    return Token(name, roles, bytes.fromhex(given["sha256"]), expires_s)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.startswith(PREFIX):
        raise TokenLineError("the name must be 1 to 64 letters, digits, dots, - and _, and is not shown")


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        got = f"got {text!r}" if _SHORT_WORD.fullmatch(text) else "and the value is not shown"
        raise TokenLineError(f"roles must be some of {', '.join(Role)}, {got}") from None


def _expiry_s(text: str) -> float:
    """The end of a day, or a moment with its time zone; seconds since 1970."""
    try:
        if "T" not in text:
            day = date.fromisoformat(text)
            return (datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)).timestamp()
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise TokenLineError(
        "expires must be a day, YYYY-MM-DD, until whose end in UTC the token counts, or a moment with its time zone,"
        " YYYY-MM-DDTHH:MM:SSZ, and the value is not shown"
    )
