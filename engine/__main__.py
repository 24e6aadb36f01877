"""`ousel-engine`: `serve` is the engine; the other commands help those who run it.

The modules that a command needs take up to seconds to import. Each command imports its own, so that the others begin at
once: a container asks for health every few seconds, and a shell which completes commands does not wait.
"""

from __future__ import annotations

import os

# Before numpy loads: on few cores, its own threads cost a query's tail more than they save.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Before all that takes long to import.
from engine.signals import interrupted_at_once

imported = interrupted_at_once()

from pathlib import Path
from typing import Annotated

import typer

from engine.command_line import (
    command_app,
    config_option,
    json_findings_option,
    only_changed_option,
    strict_option,
    version_option,
    whole_number_option,
)
from engine.failures import one_line_each
from engine.security.roles import Role

imported()

app = command_app()


@app.callback()
def engine(version: Annotated[bool, version_option("ousel-engine")] = False) -> None:
    """The Ousel engine."""


@app.command()
def serve(
    config: Annotated[Path | None, config_option()] = None,
) -> None:
    """Follow the log and answer with recommendations until interrupted."""
    imported = interrupted_at_once()
    from engine.commands.compile import announce

    announce()
    from engine.commands.serve import serve as follow_and_answer

    imported()
    follow_and_answer(config)


@app.command()
def health(
    address: Annotated[
        str | None, typer.Argument(help="host:port of the engine; the one that the settings name where it is left out")
    ] = None,
    config: Annotated[Path | None, config_option()] = None,
    timeout: Annotated[int, whole_number_option("seconds that the answer may take", 1, 3600)] = 3,
) -> None:
    """Ask an engine whether it serves; exit code 0 says yes, 1 no."""
    from engine.commands.health import health as ask

    ask(address, config, timeout)


@app.command("check")
def check(
    config: Annotated[Path | None, config_option()] = None,
    as_json: Annotated[bool, json_findings_option()] = False,
    strict: Annotated[bool, strict_option()] = False,
) -> None:
    """Look for what would go wrong at a start, and say what to do. Nothing is changed, and no group is joined."""
    from engine.commands.check import check as look

    look(config, as_json, strict)


@app.command("config")
def show_config(
    config: Annotated[Path | None, config_option()] = None,
    only_changed: Annotated[bool, only_changed_option()] = False,
) -> None:
    """Print the settings in force as TOML, and where each comes from. Secrets are not shown."""
    from engine.commands.config import show_config as show

    show(config, only_changed)


@app.command("dead-letters")
def dead_letters(
    config: Annotated[Path | None, config_option()] = None,
    limit: Annotated[int, whole_number_option("newest letters to show", 0, 1_000_000)] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="go on with the letters that come, until Ctrl-C")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object a line, with key and value as long as the letter has them")
    ] = False,
) -> None:
    """Show the newest dead letters, the newest last. Nothing is changed, and no consumer group is used."""
    imported = interrupted_at_once()
    from engine.commands.dead_letters import dead_letters as show

    imported()
    show(config, limit, follow, as_json)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="who will have it; shown in the log, and its calls are counted together")],
    role: Annotated[list[Role], typer.Option(help="what it may be used for; give it once for each role")],
    expires: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="the last day, in UTC, on which it counts; none: no end")
    ] = None,
) -> None:
    """Make a new token. It is shown this once: the file that engines read has only its digest."""
    from engine.commands.token import make_token

    make_token(name, role, expires)


@app.command("compile")
def compile_functions() -> None:
    """Compile the engine's functions beforehand, as when an image is built: no start of the engine has to then.

    They are kept beside the sources, or in the folder that NUMBA_CACHE_DIR names.
    """
    from engine.commands.compile import compile_functions as compile_all

    compile_all()


def main() -> None:
    with one_line_each("ousel-engine"):
        app(prog_name="ousel-engine")


if __name__ == "__main__":
    main()
