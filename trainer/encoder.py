"""Trains graph and session encoders jointly: predict the next item at every position of every window.

First the session encoder, ids and content learn alone, which is cheap; then the graph layers join, with the graph as of
the start of the piece of the log that a window's targets lie in.

Shapes: B windows, L events in each, A distinct items of a step, M negatives, d width.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from engine.model.recommender import Recommender
from engine.signals import Stopped
from engine.state.graph import LiveGraph
from trainer.augment import crop, mask, reorder
from trainer.checkpoint import Checkpoint, CheckpointError, chance_of, restore_chance
from trainer.config import TrainSection
from trainer.curves import Curves
from trainer.dataset import Histories, SessionBatch
from trainer.divergence import check_loss, check_weights
from trainer.early_stopping import EarlyStopping
from trainer.forward import Dropped, ItemForward, in_half, queries
from trainer.losses import sampled_softmax, session_mask
from trainer.negatives import NegativeSampler
from trainer.order import linked_order, plain_order
from trainer.parallel import Ranks
from trainer.progress import Progress
from trainer.replay import TrainingData

_log = logging.getLogger(__name__)

_WARMUP = 0.05
_LAST_RATE = 0.01
_ROUNDING = 1e-9  # of a share
_APART = 1_000_003  # between the seeds of ranks
_ALONE = Ranks()
_STAGE, _SETTING = "encoders", "trainer.learning_rate"  # as a divergence names them

# Scores the encoders with the graph or without it, the higher the better.
Validate = Callable[[ItemForward, bool], float]


class Schedule:
    """How far a training is: by steps where they are limited, else by the clock, so that it always ends in time."""

    def __init__(self, budget_s: float, max_steps: int | None, begin: float = 0.0) -> None:
        self._start_s = time.monotonic()
        self._budget_s = budget_s
        self._max_steps = max_steps
        self._begin = begin
        self.step = 0
        self.skipped = 0.0  # share of the whole that was left out

    def progress(self) -> float:
        """From `begin` to 1."""
        done = self.step / self._max_steps if self._max_steps is not None else self.elapsed_s() / self._budget_s
        return self._begin + (1 - self._begin) * min(1.0, done + self.skipped)

    def skip_to(self, at: float) -> None:
        """Leaves out what lies before `at`; what comes after it stays as long as it is."""
        self.skipped += max(0.0, at - self.progress()) / (1 - self._begin) + _ROUNDING

    def rate(self, at: float | None = None) -> float:
        """Share of the peak learning rate at `at`, or now: a short rise, then a cosine down to a hundredth."""
        at = self.progress() if at is None else at
        rise = min(1.0, (at - self._begin + 1e-3) / _WARMUP)
        return rise * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * at)))

    def elapsed_s(self) -> float:
        """Time trained, that before a resumption included."""
        return time.monotonic() - self._start_s

    def resume(self, step: int, elapsed_s: float, skipped: float) -> None:
        """Goes on from where a training was."""
        self.step, self.skipped = step, skipped
        self._start_s = time.monotonic() - elapsed_s


class EncoderTrainer:
    """Trains `forward.model` in place, on the device that it is on, with events 0..end-1.

    Args:
        checkpoint: written when it is due and at the end, and gone on from, bit for bit, where it exists. A schedule by
            the clock goes on with the time that was left.
        validate: asked about events that the model doesn't learn from. Where there is patience, each of the two parts
            of the training, without the graph and with it, ends early where it gains no more, and with the weights
            that scored best in it.
        curves: get the loss and the learning rate of each step, and what validations score.
        ranks: that train it together; only the first validates, and only it needs curves.
    """

    def __init__(
        self,
        forward: ItemForward,
        data: TrainingData,
        histories: Histories,
        end: int,
        config: TrainSection,
        schedule: Schedule,
        checkpoint: Checkpoint | None = None,
        validate: Validate | None = None,
        curves: Curves | None = None,
        ranks: Ranks = _ALONE,
    ) -> None:
        self._forward = forward
        self._histories = histories
        self._config = config
        self._schedule = schedule
        self._checkpoint = checkpoint
        self._curves = curves
        self._validate = validate if config.patience else None
        self._stopping = EarlyStopping(config.patience)
        self._is_linked = False  # whether the steps now have the graph
        self._ranks = ranks
        # Windows and negatives are the same on every rank; what hides or augments its share of them is drawn apart.
        self._generator = torch.Generator().manual_seed(config.seed)
        own = torch.Generator().manual_seed(config.seed + (ranks.rank + 1) * _APART)
        if not ranks.is_first:
            torch.manual_seed(config.seed + (ranks.rank + 1) * _APART)
        count = torch.bincount(data.log.item[:end], minlength=data.items)
        self._sampler = NegativeSampler(
            count.masked_fill(torch.from_numpy(data.deleted), -1), config.uniform_share, config.negatives
        )
        self._learned = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(parameter_groups(self._model, config.weight_decay), lr=config.learning_rate)
        self._dropped = Dropped(config.id_dropout, config.edge_dropout, own)
        self._plain = plain_order(data, histories, end, config, self._generator)
        self._linked = linked_order(data, histories, end, config, self._generator)

    @property
    def _model(self) -> Recommender:
        return self._forward.model

    def run(self, stop: threading.Event, progress: Progress) -> None:
        """Trains to the end of the schedule.

        Raises:
            Stopped: `stop` was set; where there is a checkpoint, it is of this very step.
            CheckpointError: the checkpoint there is of another run, or not there for every rank.
            Diverged: the loss or a weight is not finite any more.
        """
        self._restore()
        self._model.train()
        while True:
            due = self._checkpoint is not None and self._checkpoint.due()
            stopped, due, at = self._ranks.agree(stop.is_set(), due, self._schedule.progress())
            if at >= 1.0:
                break
            if stopped or due:
                self._save()
            if stopped:
                raise Stopped
            if not self._is_linked and at >= self._links_at():
                self._end_part()
                self._is_linked = True
            loss = self._step(at)
            if self._validate is not None and self._schedule.step % self._config.validate_steps == 0:
                self._judge()
            progress.update("encoder", at, f"loss {loss:.3f}, step {self._schedule.step}")
        check_weights(self._model, _STAGE, self._schedule.step, _SETTING, self._config.learning_rate)
        self._end_part()
        self._save()
        self._model.eval()

    def _links_at(self) -> float:
        """Where the part with the graph begins."""
        return 1 - self._config.graph_share

    def _step(self, at: float) -> float:
        """One step of the optimizer; returns the loss before it."""
        config, rate = self._config, self._config.learning_rate * self._schedule.rate(at)
        graph, windows = next(self._linked if self._is_linked else self._plain)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        negatives = self._sampler.draw(self._generator)  # [M]
        batch = self._histories.batch(self._ranks.share(windows), config.window)
        batch = crop(batch, config.augment_crop, self._dropped.generator)
        batch = reorder(batch, config.augment_reorder, self._dropped.generator)
        targets = int((batch.target >= 0).sum())
        mean = 0.0
        self._optimizer.zero_grad(set_to_none=True)
        if targets:
            loss = _loss(self._forward, batch, graph, negatives, self._sampler, self._dropped, config)
            loss.backward()
            mean = loss.item()
        mean = self._ranks.combine(self._learned, mean, targets)
        check_loss(mean, _STAGE, self._schedule.step + 1, _SETTING, config.learning_rate)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step += 1
        self._draw(loss=mean, learning_rate=rate)
        return mean

    def _judge(self) -> None:
        """Validates, and leaves out the rest of a part that gains no more."""
        assert self._validate is not None
        score = self._score(self._validate)
        self._draw(validation=score)
        _log.info("validation after step %d: %.4f", self._schedule.step, score)
        self._stopping.saw(score, self._model)
        if self._stopping.exhausted():
            _log.info("no gain any more %s the graph", "with" if self._is_linked else "without")
            self._schedule.skip_to(1.0 if self._is_linked else self._links_at())

    def _end_part(self) -> None:
        """Goes on with the best weights, those of now included."""
        if self._validate is None:
            return
        if not self._stopping.exhausted():
            self._stopping.saw(self._score(self._validate), self._model)
        self._stopping.give_best(self._model)

    def _score(self, validate: Validate) -> float:
        return self._ranks.of_first(lambda: validate(self._forward, self._is_linked))

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
                "skipped": self._schedule.skipped,
                "is_linked": self._is_linked,
                "stopping": self._stopping.state(),
                "curves": self._curves.state() if self._curves is not None else {},
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "generator": self._generator.get_state(),
                "dropout": chance,  # of each rank
                "plain": self._plain.state(),
                "linked": self._linked.state(),
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
        self._optimizer.load_state_dict(state["optimizer"])
        self._plain.restore(state["plain"])
        self._linked.restore(state["linked"])
        self._generator.set_state(state["generator"])
        hidden, dropout = (of_ranks[self._ranks.rank] for of_ranks in state["dropout"])
        self._dropped.generator.set_state(hidden)
        restore_chance(self._forward.device, dropout)
        self._is_linked = state["is_linked"]
        self._stopping.restore(state["stopping"])
        if self._curves is not None:
            self._curves.restore(state["curves"])
        self._schedule.resume(state["step"], state["elapsed_s"], state["skipped"])
        _log.info("going on from %s after step %d", self._checkpoint, self._schedule.step)


def _loss(
    forward: ItemForward,
    batch: SessionBatch,
    graph: LiveGraph | None,
    negatives: Tensor,
    sampler: NegativeSampler,
    dropped: Dropped,
    config: TrainSection,
) -> Tensor:
    model, device = forward.model, forward.device
    learns = batch.target >= 0  # [B, L]
    rows, at = torch.cat([batch.events.row[batch.events.mask], batch.target[learns], negatives]).unique(
        return_inverse=True
    )
    inputs, targets = int(batch.events.mask.sum()), int(learns.sum())
    row = torch.full_like(batch.events.row, -1)
    row[batch.events.mask] = at[:inputs]
    events = replace(batch.events, row=row)
    if config.augment_mask:
        events = mask(events, config.augment_mask, len(rows), dropped.generator)
    masked = session_mask(batch.target, batch.target_session, negatives, len(sampler.log_inclusion))[learns]
    masked, learns, at = masked.to(device), learns.to(device), at.to(device)
    correction = (config.popularity_share * sampler.log_inclusion[negatives]).to(device)
    with in_half(device, config.half):
        table = forward(rows, graph, dropped).float()  # [A, d]
        known = torch.cat([table, forward.unknown().float()]) if config.augment_mask else table
        kind = batch.target_kind.to(device)
        asked = [query[learns].float() for query in queries(model, known, events.to(device), kind)]  # [P, d] each
    losses = []
    for query in asked:
        positive = (query * table[at[inputs : inputs + targets]]).sum(-1)
        negative = query @ table[at[inputs + targets :]].T  # [P, M]
        losses.append(sampled_softmax(model.logits(positive), model.logits(negative), correction, masked))
    return torch.stack(losses).mean()


def parameter_groups(model: Recommender, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms, embeddings and the temperature don't."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    encoders = [parameter for name, parameter in model.named_parameters() if not name.startswith("ranker.")]
    decays = [p for p in encoders if p.ndim >= 2 and id(p) not in embeddings]
    rest = [p for p in encoders if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
