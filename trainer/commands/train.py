"""`ousel-trainer train`: one training, from files or from the log, to a weights file with its figures beside it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from kafka.errors import KafkaError
from rich.console import Console

from engine.command_line import config_option, path_option
from engine.config import load_settings
from engine.events.source import SourceError
from engine.failures import WrongValue
from engine.kernel_cache import report
from engine.log_start import start_log
from engine.model.device import check_device
from engine.model.weights import Weights
from engine.signals import Stopped, stopping
from trainer.checkpoint import Checkpoint, CheckpointError
from trainer.config import TrainerConfig
from trainer.curves import Curves, CurvesError, check_installed
from trainer.data.file_log import replay_files
from trainer.divergence import Diverged
from trainer.follow import kafka_source, replay_log
from trainer.gate import refusal, summary
from trainer.model_file import SUFFIX, figures_path, load_model, save_model
from trainer.outputs import check_output, check_output_folder
from trainer.parallel import Ranks, joined
from trainer.progress import Progress
from trainer.replay import TrainingData
from trainer.rules import settled
from trainer.start import check_shape
from trainer.train import Helped, Trained, run_of
from trainer.train import train as train_model

_INTERRUPTED = 130  # as shells have it for SIGINT
_log = logging.getLogger(__name__)


def train(
    out: Annotated[Path, path_option("weights file to write, NAME.safetensors; NAME.json gets the figures")],
    events: Annotated[
        Path | None,
        path_option("CSV, gzip'd CSV, Parquet or a folder of Parquet files of events, instead of the log in Kafka"),
    ] = None,
    items: Annotated[Path | None, path_option("the same of the catalog; needs --events")] = None,
    config: Annotated[Path | None, config_option()] = None,
    previous: Annotated[Path | None, path_option("weights file to start from and to compare with")] = None,
    checkpoint: Annotated[
        Path | None,
        path_option("file to save the training to, and to go on from where it exists; needs --events"),
    ] = None,
    curves: Annotated[
        Path | None, path_option("folder for the curves of the training: event files for TensorBoard, and a PNG")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="write over what --out names")] = False,
) -> None:
    """Train once on what files or the log hold, and write the model to a file. Nothing is pushed."""
    try:
        settings = load_settings(TrainerConfig, config)
        check_device("trainer.device", settings.trainer.device)
        _check_paths(out, events, items, checkpoint, curves, force)
        if curves:
            check_installed()
    except (ValueError, CurvesError) as error:
        raise WrongValue(f"ousel-trainer train: {error}") from None
    torch.set_num_threads(settings.trainer.threads)
    os.nice(settings.trainer.nice)
    with stopping() as stop, joined(settings.trainer.device) as ranks:
        start_log(settings, None if ranks.is_first else "warning")
        report.log(_log)
        try:
            inputs = _inputs(settings, events, items, previous, ranks, stop)
            saved = Checkpoint(checkpoint, inputs.run, settings.trainer.checkpoint_s) if checkpoint else None
            drawing = Curves(curves) if curves and ranks.is_first else None
            with Progress(None if ranks.is_first else Console(quiet=True)) as progress, drawing or nullcontext():
                models = train_model(inputs.data, settings.trainer, inputs.start, stop, progress, saved, drawing, ranks)
                *_, trained = models
        except Helped:
            return
        except Stopped:
            on = f"; the same command goes on from {checkpoint}" if checkpoint and checkpoint.exists() else ""
            _log.warning("interrupted, nothing was written to %s%s", out, on)
            raise SystemExit(_INTERRUPTED) from None
        except CheckpointError as error:
            raise SystemExit(f"ousel-trainer train: {error}") from None
        except Diverged as error:
            raise SystemExit(f"ousel-trainer train: {error}; nothing was written to {out}") from None
    _write(out, trained, inputs, settings)
    if saved:
        saved.remove()  # nothing is left to go on with


def _check_paths(
    out: Path, events: Path | None, items: Path | None, checkpoint: Path | None, curves: Path | None, force: bool
) -> None:
    """Says before the training what would fail after it."""
    if out.suffix != SUFFIX:
        raise ValueError(f"--out must end in {SUFFIX}, got {str(out)!r}")
    if items is not None and events is None:
        raise ValueError("--items needs --events: the log has a catalog of its own")
    if checkpoint is not None and events is None:
        raise ValueError("--checkpoint needs --events: the log will have grown when the training goes on")
    for path in (out, figures_path(out)):
        check_output("--out", path)
        if path.exists() and not force:
            raise ValueError(f"--out must name a new file, or give --force, got {str(path)!r}")
    if checkpoint is not None:
        check_output("--checkpoint", checkpoint)
    if curves is not None:
        check_output_folder("--curves", curves)


class _Inputs(NamedTuple):
    """The input of one training.

    Attributes:
        start: the weights to start from.
        run: the name of the run.
        positions: where reading the log ended, by topic and partition; empty where files were read.
    """

    data: TrainingData
    start: Weights | None
    run: str
    positions: Mapping[tuple[str, int], int]


def _write(out: Path, trained: Trained, inputs: _Inputs, settings: TrainerConfig) -> None:
    """Writes the model and its figures, and says what they are."""
    why = refusal(trained, settings.trainer.max_drop)
    figures = {
        "metrics": trained.metrics,
        "before": trained.before,
        "refused": why,
        "events": len(inputs.data.log),
        "items": inputs.data.items,
        "positions": [
            {"topic": topic, "partition": partition, "position": position}
            for (topic, partition), position in sorted(inputs.positions.items())
        ],
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "settings": settings.trainer.model_dump(mode="json"),
    }
    save_model(out, trained.weights, figures)
    _log.info("trained in %.0f s, %d steps: %s", trained.seconds, trained.steps, summary(trained.metrics))
    if why:
        _log.warning("`run` would not push this model: %s", why)
    print(f"written to {out} and {figures_path(out)}")


def _inputs(
    settings: TrainerConfig,
    events: Path | None,
    items: Path | None,
    previous: Path | None,
    ranks: Ranks,
    stop: threading.Event,
) -> _Inputs:
    try:
        start = None if previous is None else load_model(previous)
        if events is not None:
            replay = replay_files(events, items, settings, stop)
        elif ranks.size > 1:
            raise ValueError("several processes need --events: the log would end elsewhere for each")
        else:
            with kafka_source(settings, stop) as source:
                replay = replay_log(settings, source, stop)
        need = settings.trainer.min_events
        if len(replay) < need:
            raise ValueError(f"trainer.min_events must be at most the events at hand, got {need} and {len(replay)}")
        data = replay.data()
        if start is not None:
            shape = start.weights.model.shape
            check_shape(shape, data, settled(settings.trainer, data.log, data.state.history, shape))
        run = run_of(data, settings.trainer, start.data if start else None, ranks.size)
        if not ranks.is_same(run):
            raise ValueError("every process must have the same files and settings, got others on some")
    except ValueError as error:
        raise WrongValue(f"ousel-trainer train: {error}") from None
    except (SourceError, KafkaError) as error:
        raise SystemExit(f"ousel-trainer train: {error}") from None
    _log.info("%d events and %d items to train from", len(data.log), data.items)
    positions = replay.state.positions if events is None else {}
    return _Inputs(data, start.weights if start else None, run, dict(positions))
