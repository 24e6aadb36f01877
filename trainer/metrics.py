"""Every Prometheus metric of the trainer. docs/metrics.md explains each for operators.

They are in a registry of their own. The trainer folds the log with the engine's code, so the engine's metrics are in
its process, too, and would say of an engine that does not run here that it is not ready.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from engine import metrics
from engine.events.source import EventSource
from engine.signals import Stopped
from trainer.archive.archive import Archive
from trainer.divergence import Diverged
from trainer.train import Trained

REGISTRY = CollectorRegistry()
for _shared in (
    metrics.BUILD_INFO,
    metrics.MEMORY_LIMIT,
    metrics.READER_MEMORY,
    metrics.DISK_FREE,
    metrics.DISK_SIZE,
    metrics.METRICS_CONNECTIONS_REFUSED,
):
    REGISTRY.register(_shared)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

TRAINING = Gauge("ousel_trainer_training", "1 while a training runs", registry=REGISTRY)
TRAININGS = Counter(
    "ousel_trainer_trainings", "Trainings that have ended, by how they did", ["outcome"], registry=REGISTRY
)
LAST_OUTCOME = Gauge(
    "ousel_trainer_last_outcome", "1 for the way in which the last training ended", ["outcome"], registry=REGISTRY
)
TRAINING_SECONDS = Histogram(
    "ousel_trainer_training_seconds",
    "Time of a training",
    buckets=(10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0),
    registry=REGISTRY,
)
STEPS = Gauge("ousel_trainer_steps", "Steps of the encoders behind the newest model", registry=REGISTRY)
MODELS = Counter("ousel_trainer_models", "Models that were judged, by the verdict", ["outcome"], registry=REGISTRY)
MODEL_FIGURE = Gauge(
    "ousel_trainer_model_figure", "Figures of the newest model on the newest part of the log", ["name"],
    registry=REGISTRY,
)  # fmt: skip
MODEL_TIME = Gauge(
    "ousel_trainer_model_timestamp_seconds", "When a model was last fit to be pushed, since 1970; 0 before the first",
    registry=REGISTRY,
)  # fmt: skip
PUSHES = Counter("ousel_trainer_pushes", "Pushes by outcome", ["outcome"], registry=REGISTRY)
EVENTS_READ = Counter("ousel_trainer_events_read", "Events folded, of the log and of the archive", registry=REGISTRY)
LAG = Gauge("ousel_trainer_lag_records", "Records in the log that are not folded yet", registry=REGISTRY)
LOG_AGE = Gauge(
    "ousel_trainer_log_age_seconds", "Time since a broker last answered the process that reads the log",
    registry=REGISTRY,
)  # fmt: skip
ARCHIVE_BYTES = Gauge("ousel_trainer_archive_bytes", "Bytes of the files in the archive", registry=REGISTRY)

FINISHED, DIVERGED, STOPPED, FAILED = "finished", "diverged", "stopped", "failed"
_OUTCOMES = (FINISHED, DIVERGED, STOPPED, FAILED)
# Each outcome is shown from the start on: of a counter that begins at 1 Prometheus does not see that it has risen.
for _outcome in _OUTCOMES:
    TRAININGS.labels(_outcome)
for _outcome in ("pushed", "refused"):
    MODELS.labels(_outcome)
for _outcome in ("accepted", "refused", "failed"):
    PUSHES.labels(_outcome)


@contextmanager
def training() -> Iterator[None]:
    """Counts one training, by how it ends, and times it."""
    outcome = FAILED
    TRAINING.set(1)
    try:
        with TRAINING_SECONDS.time():
            yield
        outcome = FINISHED
    except Diverged:
        outcome = DIVERGED
        raise
    except Stopped:
        outcome = STOPPED
        raise
    finally:
        TRAINING.set(0)
        TRAININGS.labels(outcome).inc()
        for one in _OUTCOMES:
            LAST_OUTCOME.labels(one).set(one == outcome)


def judged(trained: Trained, *, refused: bool) -> None:
    """Shows the newest model's figures and what the gate made of it."""
    STEPS.set(trained.steps)
    show_figures(trained.metrics)
    MODELS.labels("refused" if refused else "pushed").inc()
    if not refused:
        MODEL_TIME.set_to_current_time()


def show_figures(figures: Mapping[str, float]) -> None:
    """Sets a series for each figure of a training; their names are those of the code."""
    for name, figure in figures.items():
        MODEL_FIGURE.labels(name).set(figure)


def watch(source: EventSource, archive: Archive | None) -> None:
    """Shows how far the log is read, and how large the archive is, at each scrape."""
    LAG.set_function(source.lag)
    LOG_AGE.set_function(lambda: source.health().age_s)
    if archive is not None:
        ARCHIVE_BYTES.set_function(archive.size_bytes)
