"""The engine's own encoders as a scorer: learned from a file with a full softmax, ranked by cosine as the index does.

What is measured here is the part of the model that needs no live graph: ids, content and the session encoder. All items
are scored, without index and ranker.

Shapes: E events, N items, B questions or windows, L events of each, P positions with a target, d width.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.model.recommender import ModelShape, Recommender
from engine.state.ring import Neighbors
from trainer.checkpoint import Checkpoint
from trainer.evaluation.log import Events, Ints, Questions, Split
from trainer.evaluation.metrics import Judge
from trainer.evaluation.ranked import rank
from trainer.evaluation.settings import OuselSettings
from trainer.evaluation.training import Course, EpochTrainer
from trainer.forward import ItemForward
from trainer.replay import EventLog

_VALIDATED_K = 10
_AT_ONCE = 256


class OuselScorer:
    """Trains in `fit`; `observe` changes nothing, since histories come with the questions.

    Args:
        validation: questions about what lies behind the training events, to tell when to stop; needed for patience.
        checkpoint: see `EpochTrainer`.
    """

    name = "ousel"

    def __init__(
        self,
        settings: OuselSettings,
        *,
        validation: Split | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.settings = settings
        self.course = Course()
        self._validation = validation
        self._checkpoint = checkpoint
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
            expansion=settings.expansion,
            gated=settings.gated,
            relative_time=settings.relative_time,
            local_heads=settings.local_heads,
            local_window=settings.local_window,
            by_kind=settings.by_kind,
        )
        model = Recommender(shape)
        torch.nn.init.normal_(model.graph.identity.weight[1:], std=0.02)
        self._forward = ItemForward(model, word, torch.zeros(items, 1))
        self._seen = seen
        rows = seen.nonzero().squeeze(1)
        validate = None if self._validation is None else lambda: self._validated(events)
        trainer = EpochTrainer(self._forward, log, rows, settings, validate, self._checkpoint)
        self.course = trainer.run()
        self._embed()

    @torch.no_grad()
    def _embed(self) -> None:
        assert self._forward is not None
        self._table = self._forward(torch.arange(len(self._seen)), None)

    def _validated(self, events: Events) -> float:
        """NDCG@10 on the validation questions."""
        assert self._validation is not None
        self._embed()
        judged = Judge(events, self._validation.train, (_VALIDATED_K,))
        for first in range(0, len(self._validation.questions), _AT_ONCE):
            questions = self._validation.questions.select(slice(first, first + _AT_ONCE))
            scores = self.score(questions)
            judged.add(questions, rank(scores, questions, events, _VALIDATED_K, self._validation.filter_seen))
        return float(judged.values()[f"ndcg@{_VALIDATED_K}"].mean(dtype=np.float64))

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
