"""`ousel-trainer run`: follows the log, trains and pushes until told to stop."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import torch
import typer
from kafka.errors import KafkaError

from engine.command_line import config_option
from engine.config import ConfigError, load_settings
from engine.events.opening import opening
from engine.events.source import SourceError
from engine.events.topics import topic_id
from engine.failures import WrongValue
from engine.kernel_cache import report
from engine.log_start import start_log
from engine.metrics_server import MetricsServer
from engine.model.device import check_device
from engine.private_files import warn_of_others
from engine.process_metrics import describe_build, watch_disk
from engine.signals import Stopped, stopping
from trainer import metrics
from trainer.archive.archive import Archive
from trainer.archive.folder import ArchiveError
from trainer.config import TrainerConfig
from trainer.follow import kafka_source
from trainer.outputs import check_output_folder
from trainer.service import TrainerService

_log = logging.getLogger(__name__)


def run(
    config: Annotated[Path | None, config_option()] = None,
    once: Annotated[
        bool, typer.Option("--once", help="end after one training; exit code 1 if nothing was pushed")
    ] = False,
) -> None:
    """Follow the log, train, and push to the engine what is better than counting, until interrupted."""
    try:
        settings = load_settings(TrainerConfig, config)
        check_device("trainer.device", settings.trainer.device)
        if settings.trainer.models_dir is not None:
            check_output_folder("trainer.models_dir", settings.trainer.models_dir)
    except ValueError as error:
        raise WrongValue(f"ousel-trainer: {error}") from None
    start_log(settings)
    if settings.trainer.models_dir is not None:
        warn_of_others(settings.trainer.models_dir)
    report.log(_log)
    torch.set_num_threads(settings.trainer.threads)
    os.nice(settings.trainer.nice)
    with stopping() as stop, _metrics(settings):
        try:
            with kafka_source(settings, stop) as source:
                archive = _archive(settings, stop)
                with nullcontext() if archive is None else closing(archive):
                    pushed = TrainerService(settings, source, stop, archive=archive).run(once)
        except Stopped:
            return
        except ConfigError as error:
            raise WrongValue(f"ousel-trainer: {error}") from None
        except (SourceError, KafkaError, ArchiveError) as error:
            raise SystemExit(f"ousel-trainer: {error}") from None
    if not pushed:
        raise SystemExit(1)


@contextmanager
def _metrics(settings: TrainerConfig) -> Iterator[None]:
    """Serves the metrics of the trainer; a training is worth more than they are, so it runs without them, too."""
    section = settings.trainer
    if not section.metrics_enabled:
        yield
        return
    describe_build("trainer")
    for name, folder in (("archive", section.archive_dir), ("models", section.models_dir)):
        if folder is not None:
            watch_disk(name, folder)
    try:
        server = MetricsServer(section.metrics_host, section.metrics_port, registry=metrics.REGISTRY)
    except OSError as error:
        _log.warning(
            "trainer.metrics_port: the metrics can't be served on %s:%d (%s); the trainer runs without them",
            section.metrics_host, section.metrics_port, error.strerror or error,
        )  # fmt: skip
        yield
        return
    _log.info("metrics on %s:%d/metrics", section.metrics_host, server.port)
    with closing(server):
        yield


def _archive(settings: TrainerConfig, stop: threading.Event) -> Archive | None:
    section, topic = settings.trainer, settings.kafka.events_topic
    if section.archive_dir is None:
        _log.info("trainer.archive_dir is not set: what the log deletes can't be trained on")
        return None
    with opening(settings.kafka, lambda _: (topic_id(settings.kafka, topic),), stop, _log.warning) as found:
        if found is None:
            raise Stopped
    return Archive(section.archive_dir, section.archive_days, settings.events, topic, *found)
