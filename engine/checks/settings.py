"""What the configuration itself lets one expect, once it has been read."""

from __future__ import annotations

from collections.abc import Iterator

from engine.checks.finding import Finding, ok, warning
from engine.config import Settings, ignored_variables


def look_at_settings(settings: Settings) -> Iterator[Finding]:
    """Variables that set nothing. Whatever is wrong with a setting has ended the command before."""
    ignored = ignored_variables(type(settings))
    if ignored is not None:
        yield warning(f"{ignored}; unset them, or correct their names")
    else:
        yield ok("all settings are valid")
