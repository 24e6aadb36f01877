"""Tokens and their files, as tests need them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

ROLES = ("recommend", "track", "push", "admin")
# By name; the text of a token says nothing to an engine, so any will do.
TOKENS = {role: f"ousel_{role:_<43}" for role in (*ROLES, "metrics")}


def line(name: str, roles: str, token: str, expires: str = "") -> str:
    """The line of a token in the file."""
    end = f" expires={expires}" if expires else ""
    return f"{name} roles={roles}{end} sha256={hashlib.sha256(token.encode()).hexdigest()}"


def lines_of(tokens: Mapping[str, str] = TOKENS) -> str:
    """A file in which each token has the role that it is named after."""
    return "".join(f"{line(role, role, token)}\n" for role, token in tokens.items())


def put(path: Path, text: str) -> Path:
    """Puts a whole new file in the place of another, as an operator's tools do."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.chmod(0o600)
    return aside.replace(path)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that brings a token."""
    return (("authorization", f"Bearer {token}"),)
