"""Trains the ranker on a slice that the encoders have not seen, on candidates made as serving makes them.

Had the encoders been trained on these events, their score would look better than it is on new ones, and the ranker
would trust it too much.

Shapes: B events, C candidates of each.
"""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.ranking.query import DEFAULT_K, Query
from engine.signals import Stopped
from trainer.config import TrainSection
from trainer.dataset import Histories
from trainer.divergence import check_loss, check_weights
from trainer.encoder import Schedule
from trainer.forward import ItemForward
from trainer.losses import candidate_softmax
from trainer.progress import Progress
from trainer.replay import TrainingData
from trainer.walk import Lists, lists_of, walk

_BATCH = 64
_QUERY = Query("", "", DEFAULT_K)
_STAGE, _SETTING = "ranker", "trainer.ranker_learning_rate"  # as a divergence names them


def train_ranker(
    forward: ItemForward,
    data: TrainingData,
    histories: Histories,
    first: int,
    last: int,
    config: TrainSection,
    stop: threading.Event,
    progress: Progress,
) -> None:
    """Trains `forward.model.ranker` in place on events first..last-1.

    Raises:
        Stopped: `stop` was set.
        Diverged: the loss or a weight is not finite any more.
    """
    examples = _examples(forward, data, histories, first, last, config, stop, progress)
    if not examples:
        return
    ranker = forward.model.ranker.train()
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=config.ranker_learning_rate, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(config.seed)
    schedule = Schedule(1.0, config.ranker_epochs * len(examples))
    for _ in range(config.ranker_epochs):
        for at in torch.randperm(len(examples), generator=generator).tolist():
            if stop.is_set():
                raise Stopped
            lists, target = examples[at]
            lists = _drawn(lists, target, config.ranker_candidates, generator)
            loss = candidate_softmax(ranker(lists.score, lists.features), lists.item, target)
            check_loss(loss.item(), _STAGE, schedule.step + 1, _SETTING, config.ranker_learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = config.ranker_learning_rate * schedule.rate()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step += 1
            progress.update("ranker", schedule.progress(), f"loss {loss.item():.3f}")
    check_weights(ranker, _STAGE, schedule.step, _SETTING, config.ranker_learning_rate)
    ranker.eval()


def _drawn(lists: Lists, target: Tensor, candidates: int, generator: torch.Generator) -> Lists:
    """The target and as many other candidates, drawn evenly, as make up `candidates`: a third of the cost of all."""
    chance = torch.rand(lists.item.shape, generator=generator).masked_fill_(lists.item < 0, -1.0)
    chance.masked_fill_(lists.item == target[:, None], 2.0)
    at = chance.topk(min(candidates, chance.shape[1])).indices  # [B, c]
    features = lists.features.gather(1, at[..., None].expand(-1, -1, lists.features.shape[2]))
    return Lists(lists.item.gather(1, at), lists.score.gather(1, at), features)


def _examples(
    forward: ItemForward,
    data: TrainingData,
    histories: Histories,
    first: int,
    last: int,
    config: TrainSection,
    stop: threading.Event,
    progress: Progress,
) -> list[tuple[Lists, Tensor]]:
    """Batches of lists that hold their target, with it."""
    kept: list[tuple[Lists, Tensor]] = []
    for point in walk(forward, data, histories, first, last, config.ranker_samples, config.seed, _QUERY):
        if stop.is_set():
            raise Stopped
        lists = lists_of(point.asked, point.moment, point.model, data.ranking)
        target = data.log.item[point.events]
        held = (lists.item == target[:, None]).any(1)
        if bool(held.any()):
            kept.append((Lists(lists.item[held], lists.score[held], lists.features[held]), target[held]))
        progress.update("candidates", float(point.events[-1] - first) / max(1, last - first))
    return _rebatch(kept)


def _rebatch(kept: list[tuple[Lists, Tensor]]) -> list[tuple[Lists, Tensor]]:
    """The same examples in batches of an even size."""
    if not kept:
        return []
    width = max(lists.item.shape[1] for lists, _ in kept)

    def joined(column: str, value: float) -> tuple[Tensor, ...]:
        parts = []
        for lists, _ in kept:
            part: Tensor = getattr(lists, column)
            missing = width - part.shape[1]
            parts.append(F.pad(part, (0, 0, 0, missing) if part.ndim == 3 else (0, missing), value=value))
        return torch.cat(parts).split(_BATCH)

    target = torch.cat([target for _, target in kept]).split(_BATCH)
    columns = zip(joined("item", -1), joined("score", 0), joined("features", 0), strict=True)
    return [(Lists(*parts), wanted) for parts, wanted in zip(columns, target, strict=True)]
