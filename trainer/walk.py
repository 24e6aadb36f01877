"""Walks a slice of the log in order with the live state and frozen weights, as the engine would have served it.

Shapes: B events predicted, N items, d width, K remembered events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import RankingConfig
from engine.index.base import Hits
from engine.inference.ranker_forward import RankerForward
from engine.ranking.asked import Asked, Filter
from engine.ranking.lists import weigh
from engine.ranking.moment import Moment
from engine.ranking.query import Query
from engine.state.graph import Graph
from engine.state.ring import Neighbors
from trainer.dataset import Histories
from trainer.forward import ItemForward
from trainer.live_fold import LiveFold
from trainer.replay import TrainingData

_AT_ONCE = 256  # events folded in one go; what other users did within them is not seen yet


class ExactModel:
    """Weights as they are, and an exact search in place of the index; a `ListModel`.

    Args:
        items: [N, d] embeddings, which may go on to change.
        moment: says which items may be shown.
        known: [N] the items that are to be found; all where it is not given.
    """

    def __init__(self, forward: ItemForward, items: Tensor, moment: Moment, known: Tensor | None = None) -> None:
        self.items = items
        self._known = known
        self._forward = forward
        self._moment = moment

    @cached_property
    def habit(self) -> Tensor:
        """See `ListModel`."""
        return self._forward.habit(torch.arange(len(self.items)))

    @cached_property
    def ranker(self) -> RankerForward:
        """The ranker as it is at the first call."""
        with torch.no_grad():
            return RankerForward(self._forward.model)

    @torch.no_grad()
    def encoded(self, users: Sequence[int], history: Neighbors) -> Tensor:
        """See `ListModel`."""
        return self._forward.model.sequence.latest(self.items, history)

    def logits(self, cosine: NDArray[np.float32]) -> Tensor:
        """[B, C] what the ranker takes as the session's score."""
        return self._forward.model.logits(torch.from_numpy(cosine))

    def search(self, vectors: NDArray[np.float32], k: int) -> Hits:
        """See `ListModel`."""
        shown = torch.from_numpy(self._moment.may(np.arange(len(self.items))))
        shown = shown if self._known is None else shown & self._known
        cosine = (torch.from_numpy(vectors) @ self.items.T).masked_fill_(~shown, -torch.inf)  # [B, N]
        best = cosine.topk(min(k, len(self.items)))
        row, score = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        found = best.values.numpy() > -np.inf
        row[:, : found.shape[1]] = np.where(found, best.indices.numpy(), -1)
        score[:, : found.shape[1]] = best.values.numpy()
        return Hits(row, score)


@dataclass(frozen=True)
class WalkPoint:
    """Events to predict, and all that was known just before them, until the walk goes on.

    Attributes:
        events: [B] int64 positions in the log.
        asked: the users whose they are, each of whom had an event before.
    """

    events: Tensor
    asked: Asked
    moment: LiveFold
    model: ExactModel


def asked_of(users: Tensor, history: Neighbors, query: Query) -> Asked:
    """The same query for each of `users` [B], of whom `history` [B, K] is known."""
    return Asked([query] * len(users), users.numpy(), history, [Filter()] * len(users))


@dataclass(frozen=True)
class Lists:
    """What the ranker orders for B events.

    Attributes:
        item: [B, C] int64 candidates, -1 padded.
        score: [B, C] float32 session logits.
        features: [B, C, FEATURES] float32.
    """

    item: Tensor
    score: Tensor
    features: Tensor


@torch.no_grad()
def lists_of(asked: Asked, moment: Moment, model: ExactModel, config: RankingConfig) -> Lists:
    """What the engine's lists would be made from."""
    weighed = weigh(asked, moment, model, config)
    return Lists(torch.from_numpy(weighed.row), model.logits(weighed.cosine), weighed.features.clone())


def empty_graph(data: TrainingData) -> Graph:
    return Graph.empty(data.state.history, data.state.neighbors, data.users, data.items)


@torch.no_grad()
def walk(
    forward: ItemForward, data: TrainingData, histories: Histories, first: int, last: int, samples: int, seed: int,
    query: Query,
) -> Iterator[WalkPoint]:  # fmt: skip
    """Asks `query` before about `samples` evenly drawn events of first..last-1."""
    log = data.log
    live = LiveFold(data)
    live.fold(log.slice(0, first))
    table = forward.table(live.graph)
    model = ExactModel(forward, table, live)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(last - first, generator=generator) < samples / max(1, last - first)
    for start in range(first, last, _AT_ONCE):
        end = min(last, start + _AT_ONCE)
        events = start + chosen[start - first : end - first].nonzero().squeeze(1)
        history = histories.before(events, data.state.history)
        known = history.row[:, -1] >= 0
        if bool(known.any()):
            asked = asked_of(log.user[events[known]], history.select(known), query)
            yield WalkPoint(events[known], asked, live, model)
        live.fold(log.slice(start, end))
        touched = torch.cat([log.item[start:end], log.previous[start:end]]).unique()
        touched = touched[touched >= 0]
        table[touched] = forward(touched, live.graph)
