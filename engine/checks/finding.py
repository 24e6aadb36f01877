"""What a check has found: one line each, and how much it matters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    SKIPPED = "skipped"  # It could not be looked at, because something before it has an error.
    WARNING = "warning"  # A start goes well, and something may go wrong later.
    ERROR = "error"  # A start fails, or data will be lost.


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        message: what is so; with a warning or an error also what to do about it.
    """

    level: Level
    message: str


def ok(message: str) -> Finding:
    return Finding(Level.OK, message)


def warning(message: str) -> Finding:
    return Finding(Level.WARNING, message)


def error(message: str) -> Finding:
    return Finding(Level.ERROR, message)
