"""Walks a slice of the log in order with the live state and frozen weights, as the engine would have served it.

Shapes: Q questions, B of them at once, N items, d width, K remembered events, T targets at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.features.live import Tables
from engine.index.base import Hits
from engine.inference.ranker_forward import RankerForward
from engine.ranking.asked import Asked, Filter
from engine.ranking.moment import Moment
from engine.ranking.query import Query
from engine.state.graph import Graph
from engine.state.ring import History, Neighbors
from trainer.data.log import Questions
from trainer.dataset import Histories
from trainer.forward import LARGE_TABLE, ItemForward
from trainer.live_fold import LiveFold
from trainer.replay import TrainingData

# Events folded in one go; what other users did within them is not seen yet. Questions between two goes are asked
# together, and a search reads the whole table once for all of them: of a large one that is what a question costs.
_AT_ONCE, _AT_ONCE_LARGE = 64, 512


class ExactModel:
    """Weights as they are, and an exact search in place of the index; a `ListModel`.

    Args:
        items: [N, d] embeddings, which may go on to change.
        moment: says which items may be shown.
    """

    def __init__(self, forward: ItemForward, items: Tensor, moment: Moment) -> None:
        self.items = items
        self._known = forward.known()
        self._forward = forward
        self._moment = moment

    @cached_property
    def tables(self) -> Tables:
        """See `ListModel`."""
        return Tables(self.items.numpy(), self._forward.habit(torch.arange(len(self.items))).numpy())

    @cached_property
    def ranker(self) -> RankerForward:
        """The ranker as it is at the first call."""
        with torch.no_grad():
            return RankerForward(self._forward.model)

    @torch.no_grad()
    def encoded(self, users: NDArray[np.int64], history: History) -> NDArray[np.float32]:
        """See `ListModel`."""
        return self._forward.model.sequence.latest(self.items, Neighbors.of(history)).numpy()

    @torch.no_grad()
    def logits(self, cosine: NDArray[np.float32]) -> Tensor:
        """[B, C] what the ranker takes as the session's score."""
        return self._forward.model.logits(torch.from_numpy(cosine))

    def search(self, vectors: NDArray[np.float32], k: int) -> Hits:
        """See `ListModel`."""
        shown = torch.from_numpy(self._moment.may(np.arange(len(self.items)))) & self._known
        cosine = (torch.from_numpy(vectors) @ self.items.T).masked_fill_(~shown, -torch.inf)  # [B, N]
        best = cosine.topk(min(k, len(self.items)))
        row, score = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        found = best.values.numpy() > -np.inf
        row[:, : found.shape[1]] = np.where(found, best.indices.numpy(), -1)
        score[:, : found.shape[1]] = best.values.numpy()
        return Hits(row, score)


@dataclass(frozen=True)
class WalkPoint:
    """Questions, and all that was known when they were asked, until the walk goes on.

    Attributes:
        asked: the users who ask, each of whom had an event before.
        targets: [B, T] int64 item rows that came next, -2 behind the last.
        done: share of the walk that is behind.
    """

    asked: Asked
    targets: Tensor
    moment: LiveFold
    model: ExactModel
    done: float


def asked_of(users: Tensor, history: Neighbors, query: Query) -> Asked:
    """The same query for each of `users` [B], of whom `history` [B, K] is known."""
    return Asked([query] * len(users), users.numpy(), history.arrays(), [Filter()] * len(users))


def empty_graph(data: TrainingData) -> Graph:
    return Graph.empty(data.state.history, data.state.neighbors, data.users, data.items)


@torch.no_grad()
def walk(
    forward: ItemForward, data: TrainingData, histories: Histories, questions: Questions, query: Query
) -> Iterator[WalkPoint]:
    """Asks `query` where the questions are asked: just before their first targets, in log order."""
    log, position = data.log, questions.order[questions.cut]  # [Q]
    first = int(position[0]) if len(position) else 0
    live = LiveFold(data)
    live.fold(log.slice(0, first))
    table = forward.table(live.graph)
    model = ExactModel(forward, table, live)
    at_once = _AT_ONCE_LARGE if table.numel() > LARGE_TABLE else _AT_ONCE
    begin = 0
    for start in range(first, int(position[-1]) + 1 if len(position) else 0, at_once):
        end = int(np.searchsorted(position, start + at_once))
        if end > begin:
            some = questions.select(slice(begin, end))
            users = log.user[torch.from_numpy(position[begin:end])]
            asked = asked_of(users, histories.known_to(some, data.state.history), query)
            yield WalkPoint(asked, histories.targets_of(some), live, model, end / len(position))
        begin = end
        part = log.slice(start, start + at_once)
        live.fold(part)
        if forward.model.graph.linked:  # else embeddings are the same whatever happens
            touched = torch.cat([part.item, part.previous]).unique()
            touched = touched[touched >= 0]
            table[touched] = forward(touched, live.graph)
