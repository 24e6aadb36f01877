"""`ousel-trainer push`: a weights file, and what it scored, into a running engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from engine.command_line import config_option, path_argument
from engine.config import ConfigError, address_problem, load_settings
from engine.failures import WrongValue
from engine.log_start import start_log
from engine.signals import stopping
from trainer.config import TrainerConfig
from trainer.model_file import load_model
from trainer.push import PushError, WeightsFile, await_serving, last_records, push_next

_log = logging.getLogger(__name__)


def push(
    weights: Annotated[Path, path_argument("weights file; its figures are sent along where NAME.json is there")],
    engine: Annotated[
        str | None, typer.Option(help="host:port of the engine's gRPC server, else trainer.engine")
    ] = None,
    config: Annotated[Path | None, config_option()] = None,
) -> None:
    """Push a weights file as the next version, and wait until the engine serves it; exit code 1 where it does not."""
    try:
        settings = load_settings(TrainerConfig, config)
        problem = None if engine is None else address_problem(engine)
        if problem is not None:
            raise ConfigError(f"--engine: {problem}")
        reached = settings.trainer.engines(engine)
        model = load_model(weights)
    except ValueError as error:
        raise WrongValue(f"ousel-trainer push: {error}") from None
    start_log(settings)
    if model.figures is None:
        _log.info("%s has no figures beside it, the engine gets none", weights)
    elif model.figures.get("refused"):
        _log.warning("`run` would not push this model: %s", model.figures["refused"])
    with stopping() as stop:
        try:
            file = WeightsFile(model.data, model.metrics, last_records(model.positions))
            pushed = push_next(reached, file, settings.trainer.push_timeout_s, stop)
            print(f"pushed to {reached.name} as version {pushed.version}: stored and announced", flush=True)
            await_serving(reached, pushed.version, settings.trainer.push_timeout_s, stop)
        except PushError as error:
            raise SystemExit(f"ousel-trainer push: {error}") from None
    print(f"version {pushed.version} serves")
