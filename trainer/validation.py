"""What the encoders are worth on events that they don't learn from, quickly enough to be asked in training.

Shapes: Q events asked about, N items, L events before each, d width.
"""

from __future__ import annotations

import torch

from trainer.config import TrainSection
from trainer.dataset import Histories
from trainer.evaluate import K, ndcg, rank_of
from trainer.forward import ItemForward
from trainer.live_fold import insert
from trainer.replay import TrainingData
from trainer.walk import empty_graph

_AT_ONCE = 256


class Validation:
    """A sample of events first..last-1 of users with any event before.

    The graph is as of `first`, and all items are ranked by cosine: without the ranker, and without what happens within
    the slice, so its figures are for comparing with each other only.
    """

    def __init__(self, data: TrainingData, histories: Histories, first: int, last: int, config: TrainSection) -> None:
        self._data = data
        generator = torch.Generator().manual_seed(config.seed + 2)
        drawn = torch.randperm(last - first, generator=generator)[: config.validation_samples]
        events = first + drawn.sort().values
        history = histories.before(events, config.window)
        known = history.row[:, -1] >= 0
        self._history = history.select(known)  # [Q, L]
        self._target = data.log.item[events[known]]  # [Q]
        self._deleted = torch.from_numpy(data.deleted)
        self._graph = empty_graph(data)
        insert(self._graph, data.log.slice(0, first))

    @torch.no_grad()
    def score(self, forward: ItemForward, linked: bool) -> float:
        """NDCG@20; `linked` tells whether items have their neighbors, or are as if they had none."""
        model = forward.model.eval()
        table = forward.table(self._graph if linked else None)  # [N, d]
        deleted = self._deleted.to(table.device)
        gains = []
        for at in torch.arange(len(self._target)).split(_AT_ONCE):
            query = model.sequence(table, self._history.select(at).to(table.device))[:, -1]  # [q, d]
            cosine = (query @ table.T).masked_fill_(deleted, -2.0)
            shown = cosine.topk(min(K, cosine.shape[1])).indices.cpu()
            gains.append(ndcg(rank_of(shown, self._target[at])))
        model.train()
        return torch.cat(gains).mean().item() if gains else 0.0
