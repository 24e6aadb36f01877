"""What the encoders are worth on events that they don't learn from, quickly enough to be asked in training.

Shapes: Q questions, B of them at once, N items, L events before each, d width.
"""

from __future__ import annotations

import numpy as np
import torch

from trainer.data.log import Questions
from trainer.dataset import Histories
from trainer.evaluate import JUDGED, K
from trainer.evaluation.ranked import earned
from trainer.forward import ItemForward
from trainer.live_fold import insert
from trainer.replay import TrainingData
from trainer.walk import empty_graph

_AT_ONCE = 256


class Validation:
    """Questions about events from `first` on.

    The graph is as of `first`, and all items are ranked by cosine: without the ranker, and without what happens within
    the slice, so its figures are for comparing with each other only.
    """

    def __init__(self, data: TrainingData, histories: Histories, questions: Questions, first: int) -> None:
        self._questions, self._histories = questions, histories
        self._deleted = torch.from_numpy(data.deleted)
        self._graph = empty_graph(data)
        insert(self._graph, data.log.slice(0, first))

    @torch.no_grad()
    def score(self, forward: ItemForward, linked: bool) -> float:
        """NDCG@20; `linked` tells whether items have their neighbors, or are as if they had none."""
        model = forward.model.eval()
        table = forward.table(self._graph if linked else None)  # [N, d]
        deleted = self._deleted.to(table.device)
        gains = [np.zeros(0, np.float32)]
        for first in range(0, len(self._questions), _AT_ONCE):
            some = self._questions.select(slice(first, first + _AT_ONCE))
            history = self._histories.known_to(some, model.sequence.reach + 1).to(table.device)
            cosine = (model.sequence.latest(table, history) @ table.T).masked_fill_(deleted, -2.0)  # [B, N]
            shown = cosine.topk(min(K, cosine.shape[1])).indices.cpu().numpy()
            gains.append(earned(shown, self._histories.targets_of(some).numpy(), (K,))[JUDGED])
        model.train()
        gain = np.concatenate(gains)
        return float(gain.mean()) if len(gain) else 0.0
