"""What the commands of the engine and of the trainer share: `--version`, and paths that may begin with `~`."""

from __future__ import annotations

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


def whole_number_option(least: int, most: int, text: str) -> Any:
    """An option that takes a whole number between two bounds. The library's own message does not have the value."""

    def read(given: object) -> int:
        try:
            number = int(str(given))
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise typer.BadParameter(f"must be a whole number from {least} to {most}, got {str(given)!r}")
        return number

    return typer.Option(help=text, parser=read, metavar="N")


def path_option(text: str, **more: Any) -> Any:
    """An option that takes a path, and replaces a leading `~`: shells leave it as it is in `--out=~/model`."""
    return typer.Option(help=text, parser=_path, metavar="PATH", **more)


def path_argument(text: str) -> Any:
    """A path without the name of an option."""
    return typer.Argument(help=text, parser=_path, metavar="PATH")


def config_option() -> Any:
    """The option that names the file of settings."""
    return path_option("TOML file; OUSEL_* variables win over it")


def _path(text: str) -> Path:
    try:
        return home_resolved(Path(text))
    except ValueError as error:
        raise typer.BadParameter(f"{error}, got {text!r}") from None
