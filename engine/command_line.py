"""The options that the commands of the engine and of the trainer share, and how their values are read."""

from __future__ import annotations

import math
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from engine.config.section import home_resolved


def command_app() -> typer.Typer:
    """An app whose errors are plain lines, which logs and scripts can hold, and whose shells can complete."""
    return typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def version_option(program: str) -> Any:
    """The option that prints the version and ends."""

    def show(wanted: bool) -> None:
        if wanted:
            print(f"{program} {metadata.version('ousel-engine')}")
            raise typer.Exit

    return typer.Option("--version", callback=show, is_eager=True, help="print the version and end")


def whole_number_option(text: str, least: int | None = None, most: int | None = None) -> Any:
    """An option that takes a whole number, which may have bounds. The library's own messages do not have the value."""
    allowed = "a whole number" if least is None else f"a whole number from {least} to {most}"

    def read(given: object) -> int:
        try:
            number = int(str(given))
        except ValueError:
            raise typer.BadParameter(f"must be {allowed}, got {str(given)!r}") from None
        if least is not None and most is not None and not least <= number <= most:
            raise typer.BadParameter(f"must be {allowed}, got {str(given)!r}")
        return number

    return typer.Option(help=text, parser=read, metavar="N")


def number_option(text: str) -> Any:
    """An option that takes any number that is finite."""

    def read(given: object) -> float:
        try:
            number = float(str(given))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise typer.BadParameter(f"must be a finite number, got {str(given)!r}")
        return number

    return typer.Option(help=text, parser=read, metavar="NUMBER")


def path_option(text: str, **more: Any) -> Any:
    """An option that takes a path, and replaces a leading `~`: shells leave it as it is in `--out=~/model`."""
    return typer.Option(help=text, parser=_path, metavar="PATH", **more)


def path_argument(text: str) -> Any:
    """A path without the name of an option."""
    return typer.Argument(help=text, parser=_path, metavar="PATH")


def config_option() -> Any:
    """The option that names the file of settings."""
    return path_option("TOML file; OUSEL_* variables win over it")


def only_changed_option() -> Any:
    """The option of the commands that print the settings in force."""
    return typer.Option("--only-changed", help="leave out the settings that nothing sets")


def json_findings_option() -> Any:
    """The option that has the findings of `check` printed for scripts."""
    return typer.Option("--json", help="one JSON object a line: check, level (ok, skipped, warning, error), message")


def strict_option() -> Any:
    """The option that makes the warnings of `check` count."""
    return typer.Option("--strict", help="end with exit code 1 for a warning, too")


def _path(text: str) -> Path:
    try:
        return home_resolved(Path(text))
    except ValueError as error:
        raise typer.BadParameter(f"{error}, got {text!r}") from None
