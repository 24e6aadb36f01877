"""`ousel-engine`: `serve` is the engine; the other commands help those who run it.

The modules that serving needs take seconds to import. `serve` imports them itself, so that the other commands begin at
once, and so that a shell which completes commands does not wait.
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

from engine.command_line import command_app, config_option, version_option
from engine.commands.compile import announce, compile_functions
from engine.commands.config import config
from engine.commands.dead_letters import dead_letters
from engine.failures import one_line_each

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
    announce()
    from engine.commands.serve import serve as follow_and_answer

    imported()
    follow_and_answer(config)


app.command()(config)
app.command("dead-letters")(dead_letters)
app.command("compile")(compile_functions)


def main() -> None:
    with one_line_each("ousel-engine"):
        app(prog_name="ousel-engine")


if __name__ == "__main__":
    main()
