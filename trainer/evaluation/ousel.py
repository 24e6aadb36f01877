"""The engine's own encoders as a scorer: learned from a file with a full softmax, ranked by cosine as the index does.

What is measured here is the part of the model that needs no live graph: ids, content and the session encoder. All items
are scored, without index and ranker.

Shapes: E events, N items, B questions or windows, L events of each, P positions with a target, d width.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.model.recommender import ModelShape, Recommender
from engine.state.ring import Neighbors
from trainer.dataset import Histories, SessionBatch
from trainer.encoder import Schedule, parameter_groups
from trainer.evaluation.log import Events, Ints, Questions
from trainer.forward import Dropped, ItemForward
from trainer.losses import full_softmax
from trainer.replay import EventLog

_log = logging.getLogger(__name__)

_REPORT_S = 15.0


@dataclass(frozen=True)
class OuselSettings:
    """How the encoders are shaped and trained.

    Attributes:
        by_session: whether histories are those of sessions, as `sessions` asks, or of users.
        epochs: passes over all windows, on one cycle of the learning rate.
        stride: share of the window after which the next one of a long history begins.
    """

    by_session: bool
    dim: int = 128
    heads: int = 2
    blocks: int = 2
    window: int = 30
    dropout: float = 0.2
    batch: int = 128
    epochs: int = 10
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    id_dropout: float = 0.0
    stride: float = 0.5
    seed: int = 1


class OuselScorer:
    """Trains in `fit`; `observe` changes nothing, since histories come with the questions."""

    name = "ousel"

    def __init__(self, settings: OuselSettings) -> None:
        self.settings = settings
        self._columns: EventLog | None = None
        self._forward: ItemForward | None = None
        self._table = torch.zeros(0)
        self._seen = torch.zeros(0, dtype=torch.bool)

    def fit(self, events: Events, train: Ints) -> None:
        settings = self.settings
        torch.manual_seed(settings.seed)
        self._columns = _columns(events, settings.by_session)
        log = EventLog(*(column[torch.from_numpy(train)] for column in vars(self._columns).values()))
        items = len(events.items)
        seen = torch.zeros(items, dtype=torch.bool)
        seen[log.item] = True
        word = torch.where(seen, seen.cumsum(0), 0)
        shape = ModelShape(
            vocabulary=int(seen.sum()),
            content_dim=1,
            kinds=max(1, len(events.kinds)),
            dim=settings.dim,
            heads=settings.heads,
            blocks=settings.blocks,
            window=settings.window,
            dropout=settings.dropout,
        )
        model = Recommender(shape)
        torch.nn.init.normal_(model.graph.identity.weight[1:], std=0.02)
        self._forward = ItemForward(model, word, torch.zeros(items, 1))
        _train(self._forward, log, seen.nonzero().squeeze(1), settings)
        with torch.no_grad():
            self._table, self._seen = self._forward(torch.arange(items), None), seen

    def observe(self, positions: Ints) -> None:
        pass

    @torch.no_grad()
    def score(self, questions: Questions) -> NDArray[np.float32]:
        assert self._forward is not None and self._columns is not None, "fit comes first"
        length = self.settings.window
        back = np.arange(length, 0, -1)
        place = questions.cut[:, None] - back  # [B, L]
        known = torch.from_numpy(place >= questions.first[:, None])
        at = torch.from_numpy(questions.order[np.maximum(place, 0)])
        history = _neighbors(self._columns, at, known)
        query = self._forward.model.sequence(self._table, history)[:, -1]
        cosine = query @ self._table.T
        cosine[:, ~self._seen] = -1.0  # nothing is known of these
        scores: NDArray[np.float32] = cosine.numpy()
        return scores


def _train(forward: ItemForward, log: EventLog, rows: Tensor, settings: OuselSettings) -> None:
    """Trains in place; `rows` are the items that training has."""
    model, generator = forward.model, torch.Generator().manual_seed(settings.seed)
    histories = Histories(log)
    windows = histories.windows(0, len(log), max(1, int(settings.window * settings.stride)))
    steps = settings.epochs * -(-len(windows) // settings.batch)
    schedule = Schedule(1.0, steps)
    optimizer = torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=settings.learning_rate)
    dropped = Dropped(settings.id_dropout, 0.0, generator)
    number = torch.full((int(rows.max()) + 1,), -1)
    number[rows] = torch.arange(len(rows))
    started = reported = time.monotonic()
    model.train()
    for epoch in range(settings.epochs):
        for part in torch.randperm(len(windows), generator=generator).split(settings.batch):
            batch = histories.batch(windows.select(part), settings.window)
            loss = _loss(forward, batch, rows, number, dropped)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * schedule.rate()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step += 1
            if time.monotonic() - reported > _REPORT_S:
                reported = time.monotonic()
                _log.info(
                    "epoch %d of %d, step %d of %d, loss %.3f, %.0f s", epoch + 1, settings.epochs, schedule.step,
                    steps, loss.item(), reported - started,
                )  # fmt: skip
    model.eval()


def _loss(forward: ItemForward, batch: SessionBatch, rows: Tensor, number: Tensor, dropped: Dropped) -> Tensor:
    model = forward.model
    table = forward(rows, None, dropped)  # [N, d]
    events = batch.events
    events = replace(events, row=torch.where(events.mask, number[events.row.clamp_min(0)], -1))
    learns = batch.target >= 0  # [B, L]
    query = model.sequence(table, events)[learns]  # [P, d]
    return full_softmax(model.logits(query @ table.T), number[batch.target[learns]])


def _columns(events: Events, by_session: bool) -> EventLog:
    """All events as the encoders read them; an order is taken for minutes."""
    who = events.session if by_session else events.user
    time_ms = (events.time * (1000.0 if events.timed else 60_000.0)).astype(np.int64)
    return EventLog(
        user=torch.from_numpy(who),
        item=torch.from_numpy(events.item),
        time_ms=torch.from_numpy(time_ms),
        kind=torch.from_numpy(events.kind),
        value=torch.from_numpy(events.value),
        session=torch.from_numpy(_ordinals(who, events.session)),
        previous=torch.full((len(events),), -1),
    )


def _ordinals(who: Ints, session: Ints) -> NDArray[np.int32]:
    """[E] which of its owner's sessions each event is in, from 1; a session that is come back to counts anew."""
    order = np.argsort(who, kind="stable")
    owner, named = who[order], session[order]
    first = np.r_[True, owner[1:] != owner[:-1]]
    starts = (first | np.r_[True, named[1:] != named[:-1]]).cumsum()
    ordinal = np.empty(len(who), np.int32)
    ordinal[order] = starts - np.maximum.accumulate(np.where(first, starts, 0)) + 1
    return ordinal


def _neighbors(log: EventLog, at: Tensor, known: Tensor) -> Neighbors:
    """[B, L] events at positions `at`, where `known`."""
    return Neighbors(
        torch.where(known, log.item[at], -1),
        torch.where(known, log.time_ms[at], 0),
        torch.where(known, log.kind[at], 0),
        torch.where(known, log.value[at], 0.0),
        torch.where(known, log.session[at], 0),
    )
