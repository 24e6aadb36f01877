"""Draws the items that targets are compared with.

Shapes: N items, D draws, M distinct items among them.
"""

from __future__ import annotations

import torch
from torch import Tensor


class NegativeSampler:
    """A mix of the log's own popularity and of all items evenly.

    Popular negatives are the hard ones; the even share keeps every other item from drifting into the lists. Draws are
    with replacement and then made distinct, so an item is in with probability 1 - (1 - p) ** D; `log_inclusion` is
    what its logit is corrected by, which leaves the softmax's sum over all items unbiased.
    """

    def __init__(self, count: Tensor, uniform_share: float, draws: int) -> None:
        """Args: `count` [N] events of each item; items with a negative count are never drawn."""
        allowed = (count >= 0).double()
        seen = count.clamp_min(0).double()
        even = allowed / allowed.sum().clamp_min(1)
        popular = seen / seen.sum() if seen.sum() > 0 else even
        probability = uniform_share * even + (1 - uniform_share) * popular
        self._cumulative = probability.cumsum(0)
        self._draws = draws
        self.log_inclusion = torch.log(-torch.expm1(draws * torch.log1p(-probability.clamp_max(1 - 1e-12)))).float()

    def draw(self, generator: torch.Generator) -> Tensor:
        """[M] distinct item rows, rising; M <= D."""
        uniform = torch.rand(self._draws, generator=generator, dtype=torch.float64) * self._cumulative[-1]
        return torch.searchsorted(self._cumulative, uniform, right=True).clamp_max(len(self._cumulative) - 1).unique()
