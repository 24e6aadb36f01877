"""`ousel-engine check`: what would go wrong at a start, and what to do, before it is started."""

from __future__ import annotations

from pathlib import Path

from engine.checks.report import report
from engine.checks.table import CHECKS
from engine.config import load_config
from engine.failures import WrongValue


def check(config: Path | None, as_json: bool, strict: bool) -> None:
    """Looks for what would go wrong at a start, and says what to do. Nothing is changed, and no group is joined.

    Args:
        config: the file of settings.
        as_json: one JSON object a line in place of text.
        strict: whether a warning counts as an error does.

    Raises:
        WrongValue: a setting is wrong.
        typer.Exit: with code 1, where there is an error.
    """
    try:
        settings = load_config(config)
    except ValueError as error:
        raise WrongValue(f"ousel-engine check: {error}") from None
    report(CHECKS, settings, as_json=as_json, strict=strict)
