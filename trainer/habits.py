"""What a log says of how items are had again: bread every few days, a tent once.

Shapes: E events, N items, V items of a vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.features.table import HABITS
from trainer.replay import EventLog

_PRIOR = 10.0  # events of the average item that an item begins with, so that few of its own say little
_DAY_MS = 86_400_000.0


def item_habits(log: EventLog, word: Tensor, vocabulary: int) -> Tensor:
    """[V + 1, HABITS] float32 by vocabulary number; see `Recommender.habit`.

    Args:
        word: [N] int64 vocabulary number of each item, 0 where it has none.
    """
    habits = np.zeros((vocabulary + 1, HABITS), np.float32)
    if len(log) == 0:
        return torch.from_numpy(habits)
    user, item = log.user.numpy(), log.item.numpy()
    order = np.lexsort((item, user))  # stable: in log order within a pair
    user, item = user[order], item[order]
    time_ms, session = log.time_ms.numpy()[order], log.session.numpy()[order]
    number = word.numpy()[item]
    same = np.zeros(len(order), np.bool_)  # had before by the same user
    same[1:] = (user[1:] == user[:-1]) & (item[1:] == item[:-1])
    later = same.copy()
    later[1:] &= session[1:] != session[:-1]
    days = np.diff(time_ms, prepend=time_ms[0]).clip(0) / _DAY_MS

    def counted(chosen: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        """[V + 1] sums over the chosen events."""
        return np.bincount(number[chosen], None if weight is None else weight[chosen], minlength=vocabulary + 1)

    events, again = counted(np.ones_like(same)), counted(later)
    for column, count in enumerate((again, counted(same & ~later))):
        habits[:, column] = 2.0 * (count + _PRIOR * count.sum() / len(log)) / (events + _PRIOR)
    mean_days = days[later].mean() if later.any() else 0.0
    habits[:, 2] = np.log1p((counted(later, days) + _PRIOR * mean_days) / (again + _PRIOR)) / 4.0
    return torch.from_numpy(habits)
