"""The engine's model as a scorer: trained as the trainer trains it, and its lists made as the engine makes them.

Shapes: N items, B questions, d width, K remembered events.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.model.weights import Weights
from engine.ranking.asked import Asked, Filter
from engine.ranking.lists import make_lists
from engine.ranking.query import Query
from engine.ranking.related import padded
from engine.state.catalog import Catalog
from engine.state.ring import Neighbors
from trainer.checkpoint import Checkpoint
from trainer.config import TrainerConfig
from trainer.curves import Curves
from trainer.data.log import Events, Ints, Questions
from trainer.evaluation.training_data import columns_of, training_data
from trainer.forward import ItemForward
from trainer.live_fold import LiveFold
from trainer.progress import Progress
from trainer.replay import EventLog
from trainer.start import words
from trainer.train import train as train_model
from trainer.walk import ExactModel

_ROWS_AT_ONCE = 4096


class OuselScorer:
    """Trains in `fit`; `observe` moves the live state on, with frozen weights.

    Args:
        by_session: whether histories are those of sessions, as `sessions` asks, or of users.
        catalog: what is known of the items, by their numbers in the log.
        weights: of a model that is trained already.
        checkpoint, curves: of the training; see `train`.
    """

    name = "ousel"

    def __init__(
        self,
        config: TrainerConfig,
        *,
        by_session: bool,
        catalog: Catalog | None = None,
        weights: Weights | None = None,
        checkpoint: Checkpoint | None = None,
        curves: Curves | None = None,
    ) -> None:
        self._config = config
        self._by_session = by_session
        self._catalog = catalog
        self.weights = weights
        self._checkpoint, self._curves = checkpoint, curves
        self._columns: EventLog | None = None
        self._forward: ItemForward | None = None
        self._live: LiveFold | None = None
        self._model: ExactModel | None = None

    def fit(self, events: Events, train: Ints) -> None:
        """Trains once: arms that share the scorer share what it learned, and each begins with the state after it."""
        config = self._config
        self._columns = columns_of(events, config, by_session=self._by_session)
        data = training_data(self._columns, events, train, config, self._catalog, by_session=self._by_session)
        if self.weights is None:
            with Progress() as progress:
                for trained in train_model(
                    data, config.trainer, None, threading.Event(), progress, self._checkpoint, self._curves
                ):
                    self.weights = trained.weights
            assert self.weights is not None
        model = self.weights.model.served_in(config.inference.precision)
        self._forward = ItemForward(model, words(events.items, self.weights.vocabulary), data.content)
        self._live = LiveFold(data)
        self._live.fold(data.log)
        with torch.no_grad():
            table = self._forward.table(self._live.graph)
        self._model = ExactModel(self._forward, table, self._live)

    @torch.no_grad()
    def observe(self, positions: Ints) -> None:
        """Takes in events, rising."""
        assert self._live and self._forward and self._columns and self._model, "fit comes first"
        at = torch.from_numpy(positions)
        log = EventLog(*(column[at] for column in vars(self._columns).values()))
        self._live.fold(log)
        if self._forward.model.graph.linked:
            touched = torch.cat([log.item, log.previous]).unique()
            for rows in touched[touched >= 0].split(_ROWS_AT_ONCE):
                self._model.items[rows] = self._forward(rows, self._live.graph)

    def lists(
        self, questions: Questions, k: int, *, filter_seen: bool, among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int32]:
        """See `Lister`."""
        assert self._live and self._model, "fit comes first"
        query = Query("", "", k, exclude_history=filter_seen)
        filter_ = Filter(members=None if among is None else np.flatnonzero(among))
        count = len(questions)
        asked = Asked([query] * count, self._users(questions), self._history(questions).arrays(), [filter_] * count)
        made = make_lists(asked, self._live, self._model, self._config.ranking)
        found = padded([page.row for page in made.pages])
        lists = np.full((count, k), -1, np.int32)
        lists[:, : found.shape[1]] = found
        return lists

    @torch.no_grad()
    def vectors(self, questions: Questions) -> tuple[Tensor, Tensor, Tensor]:
        """Of the questions [B, d] and the items [N, d], all of length 1, and [N] whether an item is known at all."""
        assert self._forward and self._model, "fit comes first"
        vectors = torch.from_numpy(self._model.encoded(self._users(questions), self._history(questions).arrays()))
        return vectors, self._model.items, self._forward.known()

    def _users(self, questions: Questions) -> Ints:
        assert self._columns is not None
        users: Ints = self._columns.user.numpy()[questions.order[questions.cut]]
        return users

    def _history(self, questions: Questions) -> Neighbors:
        """[B, K] the last events that each question knows of."""
        assert self._columns is not None
        log = self._columns
        place = questions.cut[:, None] - np.arange(self._config.state.history, 0, -1)  # [B, K]
        known = torch.from_numpy(place >= questions.first[:, None])
        at = torch.from_numpy(questions.order[np.maximum(place, 0)])
        return Neighbors(
            torch.where(known, log.item[at], -1),
            torch.where(known, log.time_ms[at], 0),
            torch.where(known, log.kind[at], 0),
            torch.where(known, log.value[at], 0.0),
            torch.where(known, log.session[at], 0),
        )
