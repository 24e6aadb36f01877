"""One training run: encoders on the oldest part of the log, the ranker on the next, judged on the newest.

Shapes: N items, d width.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.model.device import CPU
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights
from trainer.checkpoint import Checkpoint
from trainer.config import TrainSection
from trainer.curves import Curves
from trainer.dataset import Histories
from trainer.encoder import EncoderTrainer, Schedule
from trainer.evaluate import K, evaluate
from trainer.forward import ItemForward
from trainer.habits import item_habits
from trainer.parallel import Ranks
from trainer.progress import Progress
from trainer.ranking import train_ranker
from trainer.replay import TrainingData
from trainer.validation import Validation

# Of the time budget; the ranker and the evaluation take the rest.
_ENCODER_SHARE = 0.7
# A warm start skips the part of the schedule in which the encoders learn without the graph at a high rate.
_WARM_BEGIN = 0.6
_MOSTLY_KNOWN = 0.5  # share of the learned ids that must have been learned before for that
# Settings that say when to train, what to keep and where to push, not what is learned.
_AROUND = {
    "nice", "min_events", "max_log_events", "archive_dir", "archive_days", "retrain_events", "retrain_minutes",
    "engine", "push_timeout_s", "check_s", "checkpoint_s",
}  # fmt: skip


class Helped(Exception):
    """This process was one of several that trained the encoders, and not the first; that one has the model."""


@dataclass(frozen=True)
class Trained:
    """A model and what it scored on the newest slice; `before` is what the weights pushed before score on it."""

    weights: Weights
    metrics: dict[str, float]
    before: dict[str, float] | None
    steps: int
    seconds: float


def train(
    data: TrainingData,
    config: TrainSection,
    previous: Weights | None,
    stop: threading.Event,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    curves: Curves | None = None,
    ranks: Ranks | None = None,
) -> Trained:
    """Trains within the time budget.

    Args:
        previous: weights to start from and to compare with, or None for a first training. They may be another
            catalog's: what they know of content holds for items that they have never seen.
        checkpoint, curves, ranks: of the encoders' training, see `EncoderTrainer`. Without ranks, one process on
            `config.device`.

    Raises:
        Stopped: `stop` was set.
        Helped: the encoders are trained, and the first rank does the rest.
        CheckpointError: the checkpoint there is of another run.
        Diverged: the loss or a weight is not finite any more.
    """
    started = time.monotonic()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    events = len(data.log)
    judged = events - max(1, min(config.holdout_events, int(events * config.holdout_share)))
    ranked = judged - max(1, min(config.ranker_events, int(events * config.ranker_share)))
    histories = Histories(data.log)
    weights = start_weights(data, ranked, config, previous)
    known = words(data.item_ids, weights.vocabulary)
    weights.model.habit.copy_(item_habits(data.log.slice(0, ranked), known, len(weights.vocabulary)))
    again = previous is not None and _continues(weights, previous)
    budget_s = 60 * (config.retrain_max_minutes if again else config.max_minutes)
    forward = ItemForward(weights.model, known, data.content)
    begin = _WARM_BEGIN if again else 0.0
    schedule = Schedule(budget_s * _ENCODER_SHARE - (time.monotonic() - started), config.max_steps, begin)
    validate = Validation(data, histories, ranked, judged, config).score if config.patience else None
    ranks = ranks or Ranks(device=torch.device(config.device))
    weights.model.to(ranks.device)
    encoder = EncoderTrainer(forward, data, histories, ranked, config, schedule, checkpoint, validate, curves, ranks)
    encoder.run(stop, progress)
    weights.model.to(CPU)  # where the state lies that the ranker's lists are made of
    if not ranks.is_first:
        raise Helped
    train_ranker(forward, data, histories, ranked, judged, config, stop, progress)
    metrics = evaluate(forward, data, histories, judged, events, config, stop, progress)
    before = None
    if previous is not None:
        old = ItemForward(previous.model, words(data.item_ids, previous.vocabulary), data.content)
        before = evaluate(old, data, histories, judged, events, config, stop, progress)
    weights.model.eval().requires_grad_(False)
    return Trained(weights, metrics, before, schedule.step, time.monotonic() - started)


def start_weights(data: TrainingData, end: int, config: TrainSection, previous: Weights | None) -> Weights:
    """A new model for the items of events 0..end-1, with what `previous` has learned where it fits."""
    count = torch.bincount(data.log.item[:end], minlength=data.items)
    order = count.sort(descending=True, stable=True).indices[: config.max_vocabulary]
    known = order[count[order] >= config.min_count]
    vocabulary = [data.item_ids[row] for row in known.tolist()]
    shape = _shape(data, config, len(vocabulary))
    model = Recommender(shape)
    if previous is not None and _fits(previous, shape):
        _inherit(model, vocabulary, previous)
    return Weights(model, vocabulary)


def run_of(data: TrainingData, config: TrainSection, previous: bytes | None, ranks: int = 1) -> str:
    """All that a training depends on, by name: equal where it would end with the same weights.

    Args:
        previous: the file of the weights to start from.
        ranks: how many processes train it.
    """
    digest = hashlib.sha256(f"{data.state!r} {data.kind_weight.tolist()}".encode())
    for column in (*vars(data.log).values(), data.content):
        digest.update(column.contiguous().numpy())
    digest.update(data.deleted.tobytes())
    digest.update("\n".join(data.item_ids).encode())
    start = "none" if previous is None else hashlib.sha256(previous).hexdigest()[:16]
    settings = [f"{name}={value}" for name, value in config.model_dump(exclude=_AROUND).items()]
    return ", ".join([f"data={digest.hexdigest()[:16]}", f"previous={start}", f"ranks={ranks}", *settings])


def check_shape(shape: ModelShape, data: TrainingData, config: TrainSection) -> None:
    """Raises ValueError where weights of this shape are none to start from: they would be left aside for new ones."""
    want = _shape(data, config, shape.vocabulary)
    name = _misfit(shape, want)
    if name is not None:
        value, got = getattr(want, name), getattr(shape, name)
        raise ValueError(f"the weights to start from must have {name} {value}, got {got}")


def _shape(data: TrainingData, config: TrainSection, vocabulary: int) -> ModelShape:
    return ModelShape(
        vocabulary=vocabulary,
        content_dim=data.content.shape[1],
        kinds=len(data.kind_weight),
        dim=config.dim,
        heads=config.heads,
        blocks=config.blocks,
        window=config.window,
        dropout=config.dropout,
        aggregation=config.aggregation,
        local_heads=config.local_heads,
        local_window=config.local_window,
        by_kind=config.by_kind,
    )


def words(item_ids: Sequence[str], vocabulary: Sequence[str]) -> Tensor:
    """[N] int64 vocabulary number of each item, 0 where it has none."""
    number = {item_id: at for at, item_id in enumerate(vocabulary, start=1)}
    return torch.tensor([number.get(item_id, 0) for item_id in item_ids], dtype=torch.int64)


def refusal(trained: Trained, max_drop: float) -> str | None:
    """Why a model must not be pushed, or None where it may."""
    name = f"hit_rate@{K}"
    now, popular = trained.metrics[name], trained.metrics[f"popularity_{name}"]
    if now <= popular:
        return f"{name} must be above that of popularity, got {now:.4f} and {popular:.4f}"
    if trained.before is not None:
        floor = (1 - max_drop) * trained.before[name]
        if now < floor:
            return f"{name} must be at least {floor:.4f} ({1 - max_drop:.0%} of the model before), got {now:.4f}"
    return None


def summary(metrics: dict[str, float]) -> str:
    """The figures of a training in one line."""
    name = f"hit_rate@{K}"
    return (
        f"{name} {metrics[name]:.4f}, popularity {metrics[f'popularity_{name}']:.4f}, "
        f"frequency {metrics[f'frequency_{name}']:.4f}, on {metrics['events']:.0f} events"
    )


def _fits(previous: Weights, shape: ModelShape) -> bool:
    """Whether a model of `shape` can start from `previous`: nothing but the number of ids may differ."""
    return _misfit(previous.model.shape, shape) is None


def _misfit(got: ModelShape, want: ModelShape) -> str | None:
    """The first field but the number of ids in which two shapes differ, None where there is none."""
    names = want.model_dump(exclude={"vocabulary"})
    return next((name for name in names if getattr(got, name) != getattr(want, name)), None)


def _continues(weights: Weights, previous: Weights) -> bool:
    """Whether little is left to learn: ids that are new to a model need the whole schedule."""
    known = (words(weights.vocabulary, previous.vocabulary) > 0).float()
    return _fits(previous, weights.model.shape) and len(known) > 0 and known.mean().item() >= _MOSTLY_KNOWN


def _inherit(model: Recommender, vocabulary: Sequence[str], previous: Weights) -> None:
    """Copies every tensor; learned ids move to their new numbers, and those that are new stay as they begin."""
    tensors = dict(previous.model.state_dict())
    fresh = model.state_dict()["graph.identity.weight"].clone()
    old = words(vocabulary, previous.vocabulary)
    at = (old > 0).nonzero().squeeze(1)
    fresh[at + 1] = tensors["graph.identity.weight"][old[at]]
    tensors["graph.identity.weight"] = fresh
    tensors["habit"] = model.habit  # not learned, but counted anew
    model.load_state_dict(tensors)
