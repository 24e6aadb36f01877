"""Prints what the checks find, for people or for scripts, and ends the command with its exit code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import typer

from engine.checks.finding import Level
from engine.checks.running import Check, Line, run_checks

C = TypeVar("C")


def report(checks: Sequence[Check[C]], config: C, *, as_json: bool, strict: bool) -> None:
    """Runs the checks, and prints each finding as it comes.

    Raises:
        typer.Exit: with code 1, where there is an error or, if `strict`, a warning.
    """
    counts: Counter[Level] = Counter()
    for line in run_checks(checks, config):
        counts[line.level] += 1
        print(_json(line) if as_json else f"{line.level:<8} {line.check}: {line.message}", flush=True)
    if not as_json:
        print(", ".join(f"{level}: {counts[level]}" for level in Level))
    if counts[Level.ERROR] or (strict and counts[Level.WARNING]):
        raise typer.Exit(1)


def _json(line: Line) -> str:
    return json.dumps({"check": line.check, "level": line.level, "message": line.message}, ensure_ascii=False)
