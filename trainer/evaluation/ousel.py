"""The engine's own encoders as a scorer: learned from a file with a full softmax, ranked by cosine as the index does.

The encoders see ids, content and histories. Where a ranker is wanted it orders candidates that are gathered from a live
state, as in the engine; what is no candidate comes behind them.

Shapes: E events, N items, B questions or windows, L events of each, P positions with a target, d width.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import RankingConfig
from engine.model.device import CPU
from engine.model.ranker import Ranker
from engine.model.recommender import ModelShape, Recommender
from engine.ranking.query import DEFAULT_K, Query
from engine.state.catalog import NO_GROUP
from trainer.checkpoint import Checkpoint
from trainer.data.log import Events, Ints, Questions, Split
from trainer.evaluation.linked import train_linked
from trainer.evaluation.live import LiveState
from trainer.evaluation.metrics import Judge
from trainer.evaluation.ranked import rank
from trainer.evaluation.ranker import Example, fit_ranker, make_examples, ranked_scores, ranker_part
from trainer.evaluation.settings import OuselSettings
from trainer.evaluation.training import Course, EpochTrainer
from trainer.forward import ItemForward
from trainer.habits import item_habits
from trainer.replay import EventLog
from trainer.walk import ExactModel, Lists, lists_of

_VALIDATED_K = 10
_VALIDATED = 8192  # validation questions at most, evenly over the log
_AT_ONCE = 256
_QUERY = Query("", "", DEFAULT_K)
_ROWS_AT_ONCE = 4096
_KEPT_EXAMPLES = 128  # newest batches that the ranker has learned from


class OuselScorer:
    """Trains in `fit`; `observe` moves the live state on, with frozen weights.

    Args:
        content: [N, F] features of the items; none: learned ids are all that is known of them.
        group: [N] what stands for each item's categories, as `Catalog.group`; none: no item is like another.
        validation: questions about what lies behind the training events, to tell when to stop; needed for patience.
        checkpoint: see `EpochTrainer`.

    Attributes:
        examples: the newest that the ranker has learned from.
    """

    name = "ousel"

    def __init__(
        self,
        settings: OuselSettings,
        *,
        content: Tensor | None = None,
        group: NDArray[np.int64] | None = None,
        validation: Split | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.settings = settings
        self.course = Course()
        self.examples: list[Example] = []
        self._content = content
        self._group = group
        self._validation = validation
        self._checkpoint = checkpoint
        self._live: LiveState | None = None
        self._linked = False  # whether the table is that of the graph as it is
        self._validating = False
        self._ranking = RankingConfig(
            index_candidates=settings.index_candidates, neighbor_sources=settings.neighbor_sources
        )
        self._forward: ItemForward | None = None
        self._table = torch.zeros(0)
        self._known = torch.zeros(0, dtype=torch.bool)

    def fit(self, events: Events, train: Ints) -> None:
        """Trains once: arms that share the scorer share what it learned, and each begins with the state after it."""
        settings = self.settings
        trained = self._live is not None
        group = np.full(len(events.items), NO_GROUP) if self._group is None else self._group
        self._live = LiveState(
            events,
            by_session=settings.by_session,
            history=settings.history,
            neighbors=settings.neighbors,
            group=group,
        )
        if trained:
            self._live.fold(train)
            if self._linked:
                self._embed()
            return
        if settings.ranker:
            self._fit_both(events, train)
        else:
            self._fit_encoders(events, train, self._checkpoint)
        assert self._forward is not None
        self._forward.model = self._forward.model.served_in(settings.precision)

    def _fit_both(self, events: Events, train: Ints) -> None:
        """The encoders, then the ranker over the lists that they give."""
        settings = self.settings
        assert self._live is not None
        early, questions = ranker_part(events, train, settings.ranker_share, by_session=settings.by_session)
        self._fit_encoders(events, early, self._checkpoint)
        assert self._forward is not None
        # Where nothing is observed between the questions, nothing is between the examples.
        rest, follows = train[~np.isin(train, early)], not settings.by_session
        examples, rest = make_examples(
            self.lists, self._fold, events, questions, rest, follows=follows, seed=settings.seed
        )
        self.examples = examples[-_KEPT_EXAMPLES:]
        ranker = self._forward.model.ranker
        torch.manual_seed(settings.seed)
        ranker.drop.p = settings.ranker_dropout
        fit_ranker(ranker, examples, settings.ranker_epochs, settings.ranker_learning_rate, settings.seed)
        self._fold(rest)
        if settings.refit:
            again = None if self._checkpoint is None else self._checkpoint.beside("again")
            self._fit_encoders(events, train, again)
            self._forward.model.ranker.load_state_dict(ranker.state_dict())
            self._forward.model.ranker.drop.p = settings.ranker_dropout

    def _fit_encoders(self, events: Events, train: Ints, checkpoint: Checkpoint | None) -> None:
        """Ends with the state after `train`, or later where it was already."""
        assert self._live is not None
        self._linked = False
        settings = self.settings
        torch.manual_seed(settings.seed)
        columns = self._live.columns
        log = EventLog(*(column[torch.from_numpy(train)] for column in vars(columns).values()))
        items = len(events.items)
        count = torch.bincount(log.item, minlength=items)
        seen = count >= settings.min_count
        word = torch.where(seen, seen.cumsum(0), 0)
        content = torch.zeros(items, 1) if self._content is None else self._content
        shape = ModelShape(
            vocabulary=int(seen.sum()),
            content_dim=content.shape[1],
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
            aggregation=settings.aggregation,
        )
        model = Recommender(shape)
        model.habit.copy_(item_habits(log, word, shape.vocabulary))
        if self._content is None:
            # Ids alone must tell items apart from the first step on; what all of them share would drown them.
            torch.nn.init.normal_(model.graph.identity.weight[1:], std=0.02)
            torch.nn.init.zeros_(model.graph.content.bias)
        model.to(settings.device)
        self._forward = ItemForward(model, word, content)
        self._known = seen | content.any(1)
        rows = (count > 0).nonzero().squeeze(1)
        validate = None if self._validation is None else lambda: self._validated(events)
        trainer = EpochTrainer(self._forward, log, rows, settings, validate, checkpoint)
        self.course = trainer.run()
        self._live.fold(train[train >= self._live.until])
        if settings.graph_steps:
            owners = len(events.sessions if settings.by_session else events.users)
            train_linked(self._forward, log, owners, settings)
            self._linked = True
        model.to(CPU)
        self._embed()

    @torch.no_grad()
    def _embed(self) -> None:
        assert self._forward is not None and self._live is not None
        self._table = self._forward.table(self._live.graph if self._linked else None)

    def _validated(self, events: Events) -> float:
        """NDCG@10 on the validation questions."""
        assert self._validation is not None
        self._embed()
        self._validating = True  # the encoders are what is trained
        judged = Judge(events, self._validation.train, (_VALIDATED_K,))
        count = len(self._validation.questions)
        sampled = min(count, _VALIDATED)
        asked = self._validation.questions.select(np.arange(sampled) * count // max(1, sampled))
        for first in range(0, sampled, _AT_ONCE):
            questions = asked.select(slice(first, first + _AT_ONCE))
            scores = self.score(questions)
            judged.add(questions, rank(scores, questions, events, _VALIDATED_K, self._validation.filter_seen))
        self._validating = False
        return float(judged.values()[f"ndcg@{_VALIDATED_K}"].mean(dtype=np.float64))

    def observe(self, positions: Ints) -> None:
        assert self._live is not None, "fit comes first"
        self._fold(positions)

    @torch.no_grad()
    def _fold(self, positions: Ints) -> None:
        assert self._live is not None and self._forward is not None, "fit comes first"
        self._live.fold(positions)
        if self._linked:
            at, columns = torch.from_numpy(positions), self._live.columns
            touched = torch.cat([columns.item[at], columns.previous[at]]).unique()
            touched = touched[touched >= 0]
            for rows in touched.split(_ROWS_AT_ONCE):
                self._table[rows] = self._forward(rows, self._live.graph)

    @torch.no_grad()
    def vectors(self, questions: Questions) -> tuple[Tensor, Tensor, Tensor]:
        """Of the questions [B, d] and the items [N, d], all of length 1, and [N] whether an item is known at all."""
        assert self._forward is not None and self._live is not None, "fit comes first"
        sequence = self._forward.model.sequence
        history = self._live.history(questions, sequence.reach + 1).to(self._table.device)
        return sequence.latest(self._table, history), self._table, self._known

    def score(self, questions: Questions) -> NDArray[np.float32]:
        if self.settings.ranker and not self._validating:
            return self.rank(questions, self.lists(questions))
        scores: NDArray[np.float32] = self._cosine(questions).numpy()
        return scores

    @property
    def ranker(self) -> Ranker:
        assert self._forward is not None, "fit comes first"
        return self._forward.model.ranker

    def lists(self, questions: Questions) -> Lists:
        """What the ranker orders, from the state as it is."""
        assert self._forward is not None and self._live is not None, "fit comes first"
        model = ExactModel(self._forward, self._table, self._live.moment, self._known)
        return lists_of(self._live.asked(questions, _QUERY), self._live.moment, model, self._ranking)

    def rank(self, questions: Questions, lists: Lists) -> NDArray[np.float32]:
        """[B, N] scores from the lists of these questions."""
        scores: NDArray[np.float32] = ranked_scores(self.ranker, lists, self._cosine(questions)).numpy()
        return scores

    @torch.no_grad()
    def _cosine(self, questions: Questions) -> Tensor:
        query, table, known = self.vectors(questions)
        return (query @ table.T).cpu().masked_fill(~known, -1.0)
