"""Trains the encoders on a file's log: epochs over all targets, full softmax, checkpoints to go on from.

Shapes: B windows, L events in each, N items that training has, P positions with a target, d width.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from engine.model.recommender import Recommender
from trainer.augment import crop, mask, reorder
from trainer.checkpoint import Checkpoint, chance_of, restore_chance
from trainer.dataset import Histories, SessionBatch, Windows
from trainer.divergence import check_loss, check_weights
from trainer.encoder import Schedule, parameter_groups
from trainer.evaluation.settings import OuselSettings
from trainer.forward import Dropped, ItemForward, in_half, queries
from trainer.losses import full_softmax, sampled_softmax, session_mask
from trainer.negatives import NegativeSampler
from trainer.replay import EventLog

_log = logging.getLogger(__name__)

_STAGE, _SETTING = "encoders", "--set learning_rate"  # as a divergence names them
_REPORT_S = 15.0
_UNIFORM_SHARE = 0.3  # of the negatives drawn evenly, so that rare items learn
_BUCKET = 16  # batches whose windows are sorted by length, so that those of one batch need little padding


@dataclass
class Course:
    """What a training has been through.

    Attributes:
        curve: an entry per epoch: `epoch`, `loss`, `seconds`, and `score` where it was validated.
        best: the score of the best epoch; `best_state` its weights, None where nothing is validated.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = 0
    best_state: dict[str, Tensor] | None = None
    curve: list[dict[str, float]] = field(default_factory=list)

    def ended(self, settings: OuselSettings) -> bool:
        waited = self.epoch - self.best_epoch
        return self.epoch >= settings.epochs or (0 < settings.patience <= waited)


class EpochTrainer:
    """Trains `forward.model` in place, on the device that it is on.

    Args:
        log: what may be learned from.
        rows: [N] the items in it.
        validate: the model's score on questions kept for that, the higher the better; asked where there is patience.
        checkpoint: written after each epoch, and gone on from where it exists.
    """

    def __init__(
        self,
        forward: ItemForward,
        log: EventLog,
        rows: Tensor,
        settings: OuselSettings,
        validate: Callable[[], float] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._forward = forward
        self._settings = settings
        self._validate = validate if settings.patience else None
        self._checkpoint = checkpoint
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._dropped = Dropped(settings.id_dropout, 0.0, self._generator)
        self._histories = Histories(log)
        self._rows = rows
        self._number = torch.full((int(rows.max()) + 1,), -1)
        self._number[rows] = torch.arange(len(rows))
        self._sampler: NegativeSampler | None = None
        if len(rows) > settings.full_softmax:
            count = torch.bincount(self._number[log.item], minlength=len(rows))
            self._sampler = NegativeSampler(count, _UNIFORM_SHARE, settings.negatives)
        self._stride = max(1, int(settings.window * settings.stride))
        self._events = len(log)
        groups = parameter_groups(self._model, settings.weight_decay)
        self._optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        self._schedule = Schedule(1.0, settings.epochs * math.ceil(len(self._windows(None)) / settings.batch))

    @property
    def _model(self) -> Recommender:
        return self._forward.model

    def run(self) -> Course:
        """Trains to the end, and leaves the model with the weights of its best epoch.

        Raises:
            CheckpointError: the checkpoint there is of another run.
            Diverged: the loss or a weight is not finite any more.
        """
        course = self._resumed()
        while not course.ended(self._settings):
            started = time.monotonic()
            loss = self._epoch(course)
            course.epoch += 1
            course.step = self._schedule.step
            entry = {"epoch": float(course.epoch), "loss": loss}
            if self._validate is not None:
                self._model.eval()
                entry["score"] = self._validate()
                if entry["score"] > course.best:
                    course.best, course.best_epoch = entry["score"], course.epoch
                    state = self._model.state_dict()
                    course.best_state = {name: tensor.clone() for name, tensor in state.items()}
            course.seconds += time.monotonic() - started
            entry["seconds"] = course.seconds
            course.curve.append(entry)
            _log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in entry.items()))
            self._save(course)
        if course.best_state is not None:
            self._model.load_state_dict(course.best_state)
        self._model.eval()
        return course

    def _epoch(self, course: Course) -> float:
        """Mean loss of one pass."""
        self._model.train()
        losses, reported = [], time.monotonic()
        for windows in self._batches():
            batch = self._histories.batch(windows, self._settings.window)
            batch = crop(batch, self._settings.augment_crop, self._generator)
            batch = reorder(batch, self._settings.augment_reorder, self._generator)
            loss = self._loss(_trimmed(batch))
            check_loss(loss.item(), _STAGE, self._schedule.step + 1, _SETTING, self._settings.learning_rate)
            for group in self._optimizer.param_groups:
                group["lr"] = self._settings.learning_rate * self._schedule.rate()
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
            self._schedule.step += 1
            losses.append(loss.item())
            if time.monotonic() - reported > _REPORT_S:
                reported = time.monotonic()
                _log.info("epoch %d, %.0f%%, loss %.3f", course.epoch + 1, 100 * self._schedule.progress(), losses[-1])
        check_weights(self._model, _STAGE, self._schedule.step, _SETTING, self._settings.learning_rate)
        return sum(losses) / max(1, len(losses))

    def _windows(self, generator: torch.Generator | None) -> Windows:
        return self._histories.windows(0, self._events, self._stride, generator)

    def _batches(self) -> Iterator[Windows]:
        """All windows once, in random order but for those of similar length being together.

        A batch holds as many inputs as any other, not as many windows: the loss is a mean over positions, and those
        of short windows must weigh no more than others.
        """
        windows = self._windows(self._generator if self._settings.stride >= 1 else None)
        length = self._histories.length(windows, self._settings.window)
        budget = max(1.0, self._settings.batch * float(length.float().mean()))
        order = torch.randperm(len(windows), generator=self._generator)
        parts: list[Tensor] = []
        for some in order.split(self._settings.batch * _BUCKET):
            some = some[length[some].argsort(stable=True)]
            batch = (length[some].cumsum(0) / budget).ceil().to(torch.int64)
            parts.extend(some.split(batch.unique_consecutive(return_counts=True)[1].tolist()))
        for at in torch.randperm(len(parts), generator=self._generator).tolist():
            yield windows.select(parts[at])

    def _loss(self, batch: SessionBatch) -> Tensor:
        if self._sampler is not None:
            return self._sampled(batch, self._sampler)
        asked, table = self._encoded(batch, self._rows, self._number)
        target = self._number[batch.target[batch.target >= 0]].to(self._forward.device)
        return torch.stack([full_softmax(query, table, target) for query in asked]).mean()

    def _sampled(self, batch: SessionBatch, sampler: NegativeSampler) -> Tensor:
        """The loss among drawn items, where all of them would cost too much; only rows that take part are embedded."""
        negatives = self._rows[sampler.draw(self._generator)]  # [M]
        learns = batch.target >= 0  # [B, L]
        target = batch.target[learns]  # [P]
        rows = torch.cat([batch.events.row[batch.events.mask], target, negatives]).unique()
        place = torch.full_like(self._number, -1)
        place[rows] = torch.arange(len(rows))
        asked, table = self._encoded(batch, rows, place)
        device = self._forward.device
        masked = session_mask(batch.target, batch.target_session, negatives, len(place))[learns].to(device)
        log_inclusion = sampler.log_inclusion[self._number[negatives]].to(device)
        wanted, others = place[target].to(device), place[negatives].to(device)
        losses = []
        for query in asked:
            items = table.to(query.dtype)
            positive = (query * items[wanted]).sum(-1).float()
            negative = (query @ items[others].T).float()  # [P, M]
            losses.append(sampled_softmax(positive, negative, log_inclusion, masked))
        return torch.stack(losses).mean()

    def _encoded(self, batch: SessionBatch, rows: Tensor, place: Tensor) -> tuple[list[Tensor], Tensor]:
        """Scaled queries [P, d] at the positions that have a target, and the table of `rows` at their `place`."""
        model, settings, events, device = self._model, self._settings, batch.events, self._forward.device
        events = replace(events, row=torch.where(events.mask, place[events.row.clamp_min(0)], -1))
        learns, kind = (batch.target >= 0).to(device), batch.target_kind.to(device)
        with in_half(device, settings.half):
            table = self._forward(rows, None, self._dropped).float()
            items = table
            if settings.augment_mask:
                events = mask(events, settings.augment_mask, len(table), self._generator)
                items = torch.cat([table, self._forward.unknown().float()])
            asked = queries(model, items, events.to(device), kind)
            scaled = [model.logits(query[learns].float()) for query in asked]
        return [query.bfloat16() if settings.half else query for query in scaled], table

    def _save(self, course: Course) -> None:
        if self._checkpoint is None:
            return
        self._checkpoint.save(
            {
                "course": vars(course),
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "generator": self._generator.get_state(),
                "dropout": chance_of(self._forward.device),
            }
        )

    def _resumed(self) -> Course:
        state = None if self._checkpoint is None else self._checkpoint.load()
        if self._checkpoint is None or state is None:
            return Course()
        course = Course(**state["course"])
        self._checkpoint.restore(self._model, state)
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        restore_chance(self._forward.device, state["dropout"])
        self._schedule.step = course.step
        _log.info("going on from %s after epoch %d", self._checkpoint, course.epoch)
        return course


def _trimmed(batch: SessionBatch) -> SessionBatch:
    """Without the columns on the left that are padding in every window."""
    used = batch.events.mask.any(0)
    first = int(used.to(torch.int8).argmax())
    events = batch.events.last(len(used) - first)
    columns = (batch.target, batch.target_session, batch.target_kind)
    return SessionBatch(events, *(column[:, first:] for column in columns))
