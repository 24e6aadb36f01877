"""`ousel-trainer`: `run` follows the log, trains and pushes; `train` and `push` do one each; `evaluate` judges.

`check` looks for what would go wrong at a start; `config` prints the settings in force.
"""

from __future__ import annotations

from typing import Annotated

# Before all that takes long to import.
from engine.signals import interrupted_at_once

imported = interrupted_at_once()

from engine.command_line import command_app, version_option
from engine.failures import log_thread_failures, one_line_each
from trainer.commands.check import check
from trainer.commands.config import config
from trainer.commands.push import push
from trainer.commands.run import run
from trainer.commands.train import train
from trainer.evaluation.command import evaluate

imported()

app = command_app()


@app.callback()
def trainer(version: Annotated[bool, version_option("ousel-trainer")] = False) -> None:
    """The Ousel trainer."""


for command in (run, train, push, evaluate, check, config):
    app.command()(command)


def main() -> None:
    log_thread_failures()
    with one_line_each("ousel-trainer"):
        app(prog_name="ousel-trainer")


if __name__ == "__main__":
    main()
