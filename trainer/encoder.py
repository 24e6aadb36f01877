"""Trains graph and session encoders jointly: predict the next item at every position of every window.

Shapes: B windows, L events in each, M negatives, d width.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from engine.model.recommender import Recommender
from engine.signals import Stopped
from trainer.augment import crop, reorder
from trainer.checkpoint import Checkpoint, CheckpointError, chance_of, restore_chance
from trainer.config import Recipe
from trainer.curves import Curves
from trainer.dataset import Histories
from trainer.divergence import check_loss, check_weights
from trainer.early_stopping import EarlyStopping
from trainer.forward import LARGE_TABLE, Dropped, ItemForward
from trainer.objective import Objective
from trainer.optimizer import Optimizer
from trainer.order import linked_order, plain_order
from trainer.parallel import Ranks
from trainer.progress import Progress
from trainer.replay import TrainingData
from trainer.schedule import Schedule

_log = logging.getLogger(__name__)

_APART = 1_000_003  # between the seeds of ranks
_ALONE = Ranks()
_VALIDATE_STEPS = 100  # at least: a pass over a short log is over before anything is learned
_STAGE, _SETTING = "encoders", "trainer.learning_rate"  # as a divergence names them

# Scores the encoders with the graph or without it, the higher the better.
Validate = Callable[[ItemForward, bool], float]


class EncoderTrainer:
    """Trains `forward.model` in place, on the device that it is on, with events 0..end-1.

    It learns with steps of one size, and what it has learned is a mean of its weights. So it can be asked for a model
    at any time, and go on.

    Args:
        linked: whether items have their neighbors, as of the start of the piece of the log that a window's targets lie
            in; else they are learned as if they had none, which costs much less.
        checkpoint: written when it is due and at the end, and gone on from, bit for bit, where it exists. A schedule by
            the clock goes on with the time that was left.
        validate: asked about events that the model doesn't learn from, every `validate_steps`. Then the best weights
            are those that scored best, and after `patience` validations without a gain it ends.
        curves: get the loss and the learning rate of each step, and what validations score.
        ranks: that train it together; only the first validates, and only it needs curves.

    Attributes:
        stopping: what validations scored.
    """

    def __init__(
        self,
        forward: ItemForward,
        data: TrainingData,
        histories: Histories,
        end: int,
        config: Recipe,
        schedule: Schedule,
        *,
        linked: bool = False,
        checkpoint: Checkpoint | None = None,
        validate: Validate | None = None,
        curves: Curves | None = None,
        ranks: Ranks = _ALONE,
    ) -> None:
        self._forward = forward
        self._histories = histories
        self._config = config
        self._schedule = schedule
        self._linked = linked
        self._checkpoint = checkpoint
        self._curves = curves
        self._validate = validate
        self.stopping = EarlyStopping(config.patience)
        self._ranks = ranks
        # Windows and negatives are the same on every rank; what hides or augments its share of them is drawn apart.
        self._generator = torch.Generator().manual_seed(config.seed)
        own = torch.Generator().manual_seed(config.seed + (ranks.rank + 1) * _APART)
        torch.manual_seed(config.seed + (0 if ranks.is_first else (ranks.rank + 1) * _APART))
        self._dropped = Dropped(config.id_dropout, config.edge_dropout, own)
        self._loss = Objective(forward, data, end, config, self._generator, self._dropped)
        # Ranks send each other whole gradients.
        is_large = self._model.graph.identity.weight.numel() > LARGE_TABLE
        by_rows = is_large and not self._loss.is_full and ranks.size == 1
        self._optimizer = Optimizer(self._model, config.learning_rate, config.weight_decay, by_rows)
        self._average = self._optimizer.average
        order = linked_order if linked else plain_order
        self._order = order(data, histories, end, config, self._generator)
        self._every = config.validate_steps or max(_VALIDATE_STEPS, len(self._order))
        self._restore()

    @property
    def _model(self) -> Recommender:
        return self._forward.model

    def run(self, stop: threading.Event, progress: Progress) -> bool:
        """Trains to the end of the schedule, or until nothing is gained any more; returns whether it is over for good.

        Raises:
            Stopped: `stop` was set; where there is a checkpoint, it is of this very step.
            CheckpointError: the checkpoint there is of another run, or not there for every rank.
            Diverged: the loss or a weight is not finite any more.
        """
        self._model.train()
        while len(self._order):  # a log in which nothing comes after anything teaches nothing
            due = self._checkpoint is not None and self._checkpoint.due()
            stopped, due, at = self._ranks.agree(stop.is_set(), due, self._schedule.progress())
            if at >= 1.0 or self.stopping.exhausted():
                break
            if stopped or due:
                self._save()
            if stopped:
                raise Stopped
            loss = self._step()
            if self._validate is not None and self._schedule.step % self._every == 0:
                self._judge(self._validate)
            progress.update("encoder", at, f"loss {loss:.3f}, step {self._schedule.step}")
        check_weights(self._model, _STAGE, self._schedule.step, _SETTING, self._config.learning_rate)
        over = self.stopping.exhausted() or self._schedule.is_whole() or not len(self._order)
        # A pause changes nothing: only an end that comes between two validations is one more, and steps with the graph
        # may be so dear that no validation comes at all.
        between = self._schedule.is_whole() and self._schedule.step % self._every
        if self._validate is not None and (between or (self._linked and self.stopping.step is None)):
            self._judge(self._validate)
        self._save()
        self._model.eval()
        return over

    @property
    def best_step(self) -> int:
        """After how many steps the model was at its best."""
        return self._schedule.step if self.stopping.step is None else self.stopping.step

    @contextmanager
    def best(self) -> Iterator[None]:
        """Within it the model has the weights that scored best or, where nothing was validated, their mean."""
        with self._average.given(self.stopping.weights):
            yield

    def _step(self) -> float:
        """One step of the optimizer; returns the loss before it."""
        config, rate = self._config, self._config.learning_rate * self._schedule.rate()
        graph, windows = next(self._order)
        negatives = self._loss.draw(self._linked)
        batch = self._histories.batch(self._ranks.share(windows), config.window)
        batch = crop(batch, config.augment_crop, self._dropped.generator)
        batch = reorder(batch, config.augment_reorder, self._dropped.generator).trimmed()
        targets = int((batch.target >= 0).sum())
        mean = 0.0
        self._optimizer.clear()
        if targets:
            loss = self._loss(batch, graph, negatives)
            loss.backward()
            mean = loss.item()
        mean = self._ranks.combine(self._optimizer.learned, mean, targets)
        check_loss(mean, _STAGE, self._schedule.step + 1, _SETTING, config.learning_rate)
        self._optimizer.step(rate)
        self._schedule.step += 1
        self._draw(loss=mean, learning_rate=rate)
        return mean

    def _judge(self, validate: Validate) -> None:
        """Notes what the mean of the weights scores."""
        with self._average.given():
            score = self._ranks.of_first(lambda: validate(self._forward, self._linked))
        self._draw(validation=score)
        _log.info("validation after step %d: %.4f", self._schedule.step, score)
        self.stopping.saw(score, self._average.copy(), self._schedule.step)

    def _draw(self, **figures: float) -> None:
        if self._curves is not None:
            for name, value in figures.items():
                self._curves.add(name, self._schedule.step, value)

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        states = self._dropped.generator.get_state(), chance_of(self._forward.device)
        chance = [self._ranks.gather(state) for state in states]
        if not self._ranks.is_first:
            return
        self._checkpoint.save(
            {
                "step": self._schedule.step,
                "elapsed_s": self._schedule.elapsed_s(),
                "stopping": self.stopping.state(),
                "average": self._average.state(),
                "curves": self._curves.state() if self._curves is not None else {},
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state(),
                "generator": self._generator.get_state(),
                "dropout": chance,  # of each rank
                "order": self._order.state(),
            }
        )

    def _restore(self) -> None:
        state = None if self._checkpoint is None else self._checkpoint.load()
        steps = self._ranks.gather(torch.tensor(state["step"] if state else 0))
        if any(step != steps[0] for step in steps):
            raise CheckpointError(f"{self._checkpoint}: must be the same file for every process")
        if self._checkpoint is None or state is None:
            return
        self._checkpoint.restore(self._model, state)
        self._optimizer.restore(state["optimizer"])
        self._average.restore(state["average"])
        self._order.restore(state["order"])
        self._generator.set_state(state["generator"])
        hidden, dropout = (of_ranks[self._ranks.rank] for of_ranks in state["dropout"])
        self._dropped.generator.set_state(hidden)
        restore_chance(self._forward.device, dropout)
        self.stopping.restore(state["stopping"])
        if self._curves is not None:
            self._curves.restore(state["curves"])
        self._schedule.resume(state["step"], state["elapsed_s"])
        _log.info("going on from %s after step %d", self._checkpoint, self._schedule.step)


def steps_of(histories: Histories, end: int, config: Recipe) -> int | None:
    """Steps that a training on events 0..end-1 takes; None where no setting says it."""
    if config.max_steps is not None or config.epochs is None:
        return config.max_steps
    windows = len(histories.windows(0, end, config.window))
    return max(1, math.ceil(config.epochs * windows / config.batch))
