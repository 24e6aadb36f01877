"""Trains graph and session encoders jointly: predict the next item at every position of every window.

First the session encoder, ids and content learn alone, which is cheap; then the graph layers join, with the graph as of
the start of the piece of the log that a window's targets lie in.

Shapes: B windows, L events in each, A distinct items of a step, M negatives, d width.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from engine.model.recommender import Recommender
from engine.state.graph import LiveGraph
from trainer.augment import crop, mask, reorder
from trainer.config import TrainSection
from trainer.dataset import Histories, SessionBatch, Windows, cuts
from trainer.forward import Dropped, ItemForward, queries
from trainer.losses import sampled_softmax, session_mask
from trainer.negatives import NegativeSampler
from trainer.progress import Progress
from trainer.replay import TrainingData
from trainer.walk import empty_graph, insert

_WARMUP = 0.05
_LAST_RATE = 0.01


class Stopped(Exception):
    """The stop event was set during training."""


class Schedule:
    """How far a training is: by steps where they are limited, else by the clock, so that it always ends in time."""

    def __init__(self, budget_s: float, max_steps: int | None, begin: float = 0.0) -> None:
        self._start_s = time.monotonic()
        self._budget_s = budget_s
        self._max_steps = max_steps
        self._begin = begin
        self.step = 0

    def progress(self) -> float:
        """From `begin` to 1."""
        if self._max_steps is not None:
            done = self.step / self._max_steps
        else:
            done = (time.monotonic() - self._start_s) / self._budget_s
        return self._begin + (1 - self._begin) * min(1.0, done)

    def rate(self) -> float:
        """Share of the peak learning rate: a short rise, then a cosine down to a hundredth."""
        at = self.progress()
        rise = min(1.0, (at - self._begin + 1e-3) / _WARMUP)
        return rise * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * at)))


def train_encoder(
    forward: ItemForward,
    data: TrainingData,
    histories: Histories,
    end: int,
    config: TrainSection,
    schedule: Schedule,
    stop: threading.Event,
    progress: Progress,
) -> None:
    """Trains `forward.model` in place on events 0..end-1.

    Raises:
        Stopped: `stop` was set.
    """
    model = forward.model
    generator = torch.Generator().manual_seed(config.seed)
    count = torch.bincount(data.log.item[:end], minlength=data.items)
    sampler = NegativeSampler(
        count.masked_fill(torch.from_numpy(data.deleted), -1), config.uniform_share, config.negatives
    )
    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.learning_rate)
    dropped = Dropped(config.id_dropout, config.edge_dropout, generator)
    plain = _plain(histories, end, config, generator)
    linked = _linked(data, histories, end, config, generator)
    model.train()
    while (at := schedule.progress()) < 1.0:
        if stop.is_set():
            raise Stopped
        graph, windows = next(linked if at >= 1 - config.graph_share else plain)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule.rate()
        batch = crop(histories.batch(windows, config.window), config.augment_crop, generator)
        batch = reorder(batch, config.augment_reorder, generator)
        loss = _loss(forward, batch, graph, sampler, dropped, config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step += 1
        progress.update("encoder", at, f"loss {loss.item():.3f}, step {schedule.step}")
    model.eval()


def _loss(
    forward: ItemForward,
    batch: SessionBatch,
    graph: LiveGraph | None,
    sampler: NegativeSampler,
    dropped: Dropped,
    config: TrainSection,
) -> Tensor:
    model = forward.model
    negatives = sampler.draw(dropped.generator)  # [M]
    learns = batch.target >= 0  # [B, L]
    rows, at = torch.cat([batch.events.row[batch.events.mask], batch.target[learns], negatives]).unique(
        return_inverse=True
    )
    table = forward(rows, graph, dropped)  # [A, d]
    inputs, targets = int(batch.events.mask.sum()), int(learns.sum())
    row = torch.full_like(batch.events.row, -1)
    row[batch.events.mask] = at[:inputs]
    events = replace(batch.events, row=row)
    if config.augment_mask:
        events = mask(events, config.augment_mask, len(table), dropped.generator)
        table = torch.cat([table, forward.unknown()])
    masked = session_mask(batch.target, batch.target_session, negatives, len(sampler.log_inclusion))[learns]
    correction = config.popularity_share * sampler.log_inclusion[negatives]
    losses = []
    for asked in queries(model, table, events, batch.target_kind):
        query = asked[learns]  # [P, d]
        positive = (query * table[at[inputs : inputs + targets]]).sum(-1)
        negative = query @ table[at[inputs + targets :]].T  # [P, M]
        losses.append(sampled_softmax(model.logits(positive), model.logits(negative), correction, masked))
    return torch.stack(losses).mean()


def _plain(
    histories: Histories, end: int, config: TrainSection, generator: torch.Generator
) -> Iterator[tuple[LiveGraph | None, Windows]]:
    """Windows of the whole log in random order, again and again, without the graph."""
    windows = histories.windows(0, end, _stride(config))
    while True:
        for part in torch.randperm(len(windows), generator=generator).split(config.batch):
            yield None, windows.select(part)


def _linked(
    data: TrainingData, histories: Histories, end: int, config: TrainSection, generator: torch.Generator
) -> Iterator[tuple[LiveGraph | None, Windows]]:
    """Windows piece by piece in log order; the graph holds exactly the events before the piece."""
    while True:
        graph = empty_graph(data)
        for first, last in cuts(end, config.chunks):
            windows = histories.windows(first, last, _stride(config))
            for part in torch.randperm(len(windows), generator=generator).split(config.batch):
                yield graph, windows.select(part)
            insert(graph, data.log.slice(first, last))


def _stride(config: TrainSection) -> int:
    # The first targets of a window see fewer events than at serving; a quarter of overlap bounds that.
    return max(1, config.window * 3 // 4)


def parameter_groups(model: Recommender, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms, embeddings and the temperature don't."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    encoders = [parameter for name, parameter in model.named_parameters() if not name.startswith("ranker.")]
    decays = [p for p in encoders if p.ndim >= 2 and id(p) not in embeddings]
    rest = [p for p in encoders if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
