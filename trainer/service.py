"""Follows the log, trains when it is time, pushes what passes the gate, and sees what becomes of it.

The registry keeps what was pushed, so that an engine which starts again has its model without a push. What an engine
refuses or somebody rolls back is nobody's any more, and the next training starts from the model before.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ousel.channel import Engines
from ousel.v1 import event_pb2

from engine.events.source import EventSource
from engine.log_fields import of_model
from engine.model.weights import Weights, encode_weights
from trainer import metrics
from trainer.archive.archive import Archive
from trainer.archive.folder import ArchiveError
from trainer.config import TrainerConfig, TrainSection
from trainer.divergence import Diverged
from trainer.follow import Follower
from trainer.gate import refusal, summary
from trainer.model_file import SUFFIX, save_model
from trainer.progress import Progress
from trainer.push import (
    Outcome,
    Pushed,
    PushError,
    Versions,
    WeightsFile,
    WeightsRefused,
    last_records,
    push_next,
    versions,
)
from trainer.replay import Replay
from trainer.train import Trained, train

_LOOK_S = 0.5  # between two looks at what becomes of a push
_WAIT_SAY_S = 60.0  # between two lines that say how many events a training waits for
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """Weights that passed the gate, as they are and as they travel."""

    weights: Weights
    file: WeightsFile


class TrainerService:
    """The trainer's one thread: it folds between trainings, and each step asks `stop` first.

    Args:
        archive: of the events that it reads; closed by its owner.
        train, push_next, versions, clock: replaced by tests.
    """

    def __init__(
        self,
        config: TrainerConfig,
        source: EventSource,
        stop: threading.Event,
        *,
        archive: Archive | None = None,
        train: Callable[..., Iterator[Trained]] = train,
        push_next: Callable[..., Pushed] = push_next,
        versions: Callable[[Engines], Versions | None] = versions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._engines = config.trainer.engines()
        self._stop = stop
        self._archive = archive
        self._train, self._push_next, self._versions = train, push_next, versions
        self._follower = Follower(config, source, stop, archive)
        metrics.watch(source, archive)
        self._clock = clock
        self._trained_s: float | None = None
        self._said_waiting_s = -math.inf
        self._checked_s = time.monotonic()
        self._model: Model | None = None  # the last that passed the gate, and that the engine has not refused
        self._pushed: Pushed | None = None  # None: the registry does not have it yet
        self._outcome = Outcome.LOST  # of that push, as far as it is known
        self._before: tuple[Model, Pushed] | None = None  # what the engine had when that was pushed first

    def run(self, once: bool = False) -> bool:
        """Runs until `stop` is set, or with `once` until one training has ended.

        Returns:
            True unless `once` is given and nothing was pushed, or the engine has refused it.

        Raises:
            SourceError: the log can't be read any more.
            ArchiveError: the archive can't be used any more.
            Stopped: `stop` was set during a training.
        """
        try:
            return self._run(once)
        except ArchiveError:
            self._archive = None  # what waits is not to be written any more
            raise
        finally:
            if self._archive is not None:
                self._archive.flush()

    def _run(self, once: bool) -> bool:
        while not self._stop.is_set():
            # Step 1. Fold and archive what came; of a log that is assigned anew, everything.
            came = self._follower.fold_next()
            replay = self._follower.replay
            if replay is None or not self._follower.caught_up():
                continue
            # Step 2. Train, judge, push.
            if self._is_due(replay):
                self._train_and_push(replay)
                if once:
                    self._wait_for_the_outcome()
                    return self._pushed is not None
            elif len(replay) < self._config.trainer.min_events:
                if once and not came:
                    self._say_waiting(replay, logging.ERROR)
                    return False
                self._say_waiting(replay, logging.INFO)
            # Step 3. See what becomes of it, as is done during a training, too.
            self._check_engine()
        return True

    def _say_waiting(self, replay: Replay, level: int) -> None:
        """How many events there are and how many it takes: at once, and then once a minute at most."""
        if level < logging.ERROR and self._clock() - self._said_waiting_s < _WAIT_SAY_S:
            return
        self._said_waiting_s = self._clock()
        refused, reason = self._follower.refused
        because = f"; {refused} records were refused, the newest because {reason}" if refused else ""
        _log.log(
            level, "a training needs %d events (trainer.min_events), and the log holds %d%s",
            self._config.trainer.min_events, len(replay), because,
        )  # fmt: skip

    def _is_due(self, replay: Replay) -> bool:
        section = self._config.trainer
        if len(replay) < section.min_events:
            return False
        if self._trained_s is None:
            return True
        late = self._follower.new_events > 0 and self._clock() - self._trained_s >= 60 * section.retrain_minutes
        return self._follower.new_events >= section.retrain_events or late

    def _train_and_push(self, replay: Replay) -> None:
        section = self._config.trainer
        self._follower.new_events = 0
        trained_on = last_records(replay.state.positions)
        try:
            with metrics.training(), Progress(meanwhile=self._check_engine) as progress:
                previous = self._model.weights if self._model else None
                for trained in self._train(replay.data(), section, previous, self._stop, progress):
                    self._take(trained, section, trained_on)
            _log.info(
                "more training on this log brings nothing: the next begins after %d new events or %g minutes",
                section.retrain_events, section.retrain_minutes,
            )  # fmt: skip
        except Diverged as error:
            _log.error(
                "%s; nothing is pushed, and the next training begins after %d new events or %g minutes",
                error, section.retrain_events, section.retrain_minutes,
            )  # fmt: skip
            return
        finally:
            self._trained_s = self._clock()

    def _take(self, trained: Trained, section: TrainSection, trained_on: Sequence[event_pb2.LogPosition]) -> None:
        """Pushes a model, unless the gate refuses it."""
        how = "trained on the newest events, too, in" if trained.refitted else "trained in"
        _log.info("%s %.0f s, %d steps: %s", how, trained.seconds, trained.steps, summary(trained.metrics))
        why = refusal(trained, section.max_drop)
        metrics.judged(trained, refused=why is not None)
        if why:
            _log.warning("not pushed: %s", why)
            return
        self._before = (self._model, self._pushed) if self._model and self._pushed else self._before
        self._model = Model(trained.weights, WeightsFile(encode_weights(trained.weights), trained.metrics, trained_on))
        self._push(section, self._model)

    def _push(self, section: TrainSection, model: Model) -> None:
        self._pushed, self._outcome = None, Outcome.LOST
        outcome = "failed"
        try:
            self._pushed = self._push_next(self._engines, model.file, section.push_timeout_s, self._stop)
            outcome = "accepted"
        except WeightsRefused as error:
            outcome = "refused"
            _log.warning("%s", error)
            self._go_back()
        except PushError as error:
            _log.warning("%s", error)
        else:
            _log.info(
                "pushed version %d: stored and announced in %.0f ms, engines build it now",
                self._pushed.version, self._pushed.announce_ms, extra=of_model(self._pushed.version),
            )  # fmt: skip
            if section.models_dir is not None:
                _keep(section.models_dir / f"{self._pushed.version}{SUFFIX}", model)
        metrics.PUSHES.labels(outcome).inc()
        self._checked_s = time.monotonic()

    def _check_engine(self) -> None:
        """Asks what has become of the last push, and pushes again what the registry does not have."""
        section = self._config.trainer
        if self._model is None or time.monotonic() - self._checked_s < section.check_s:
            return
        self._checked_s = time.monotonic()
        known = self._versions(self._engines)
        if known is None:
            return
        if self._pushed is None:
            self._push(section, self._model)
            return
        version = self._pushed.version
        outcome, why = known.outcome(version)
        if outcome is Outcome.LOST and known.newest < version:
            _log.warning("the registry has lost version %d, pushing again", version, extra=of_model(version))
            self._push(section, self._model)
        elif outcome in (Outcome.REFUSED, Outcome.ROLLED_BACK):
            _log.warning(
                "version %d %s (%s) and is not pushed again; the engine serves version %d",
                version, outcome.value, why, known.serving, extra=of_model(version),
            )  # fmt: skip
            self._go_back()
        elif outcome is not self._outcome:
            self._outcome = outcome
            _log.info("version %d %s", version, outcome.value, extra=of_model(version))

    def _wait_for_the_outcome(self) -> None:
        """Until the engine serves the last push or has refused it, for as long as it answers."""
        heard_s = time.monotonic()
        while self._pushed is not None and self._outcome in (Outcome.LOST, Outcome.BUILDING):
            if self._versions(self._engines) is not None:
                heard_s = time.monotonic()
            if self._stop.is_set() or time.monotonic() - heard_s > self._config.trainer.push_timeout_s:
                return
            self._check_engine()
            self._stop.wait(min(_LOOK_S, self._config.trainer.check_s))

    def _go_back(self) -> None:
        """The last model is nobody's any more: the one before is pushed where the registry loses it, and trained on."""
        self._model, self._pushed = self._before or (None, None)
        self._before, self._outcome = None, Outcome.LOST


def _keep(path: Path, model: Model) -> None:
    """Saves a model that is pushed; the registry has it, so a full disk ends nothing."""
    try:
        save_model(path, model.weights, {"metrics": dict(model.file.metrics)})
    except OSError as error:
        _log.error("trainer.models_dir: %s can't be written: %s", path, error.strerror)
