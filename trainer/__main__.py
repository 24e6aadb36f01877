"""`ousel-trainer`: `run` follows the log, trains and pushes until told to stop; `evaluate` judges on a file."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import torch
import typer
from kafka.errors import KafkaError

from engine.config import ConfigError, load_settings
from engine.events.kafka import KafkaSource, wait_for_broker
from engine.events.source import SourceError
from engine.events.topics import ensure_topics, topic_id
from engine.log_output import log_to_stderr
from trainer.archive.archive import Archive
from trainer.archive.folder import ArchiveError
from trainer.config import TrainerConfig
from trainer.encoder import Stopped
from trainer.evaluation.command import evaluate
from trainer.service import TrainerService

_log = logging.getLogger("trainer")

_PAUSE_S = 0.1  # training is in no hurry for a single record

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def trainer() -> None:
    """The Ousel trainer."""


app.command()(evaluate)


@app.command()
def run(
    config: Annotated[Path | None, typer.Option(help="TOML file; OUSEL_* variables win over it")] = None,
    once: Annotated[
        bool, typer.Option("--once", help="end after one training; exit code 1 if nothing was pushed")
    ] = False,
) -> None:
    """Follow the log, train, and push to the engine what is better than popularity, until interrupted."""
    try:
        settings = load_settings(TrainerConfig, config)
    except ConfigError as error:
        raise SystemExit(f"ousel-trainer: {error}") from None
    log_to_stderr(settings.log_level)
    torch.set_num_threads(settings.trainer.threads)
    os.nice(settings.trainer.nice)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        pushed = _follow(settings, stop, once)
    except Stopped:
        return
    except (ConfigError, SourceError, KafkaError, ArchiveError) as error:
        raise SystemExit(f"ousel-trainer: {error}") from None
    if not pushed:
        raise SystemExit(1)


def _follow(settings: TrainerConfig, stop: threading.Event, once: bool) -> bool:
    if not wait_for_broker(settings.kafka, stop, _log.warning):
        return True
    ensure_topics(settings.kafka)
    # Engines may share the partitions; a model is learned from all of them.
    everything = settings.kafka.model_copy(update={"share": False})
    with ExitStack() as opened:
        archive = _archive(settings)
        if archive is not None:
            opened.callback(archive.close)
        source = opened.enter_context(closing(KafkaSource(everything, max_pause_s=_PAUSE_S)))
        return TrainerService(settings, source, stop, archive=archive).run(once)


def _archive(settings: TrainerConfig) -> Archive | None:
    section, topic = settings.trainer, settings.kafka.events_topic
    if section.archive_dir is None:
        _log.info("trainer.archive_dir is not set: what the log deletes can't be trained on")
        return None
    return Archive(section.archive_dir, section.archive_days, settings.events, topic, topic_id(settings.kafka, topic))


def main() -> None:
    app(prog_name="ousel-trainer")


if __name__ == "__main__":
    main()
