"""When to stop: a training has not gained for some time, and its best weights are kept."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn


class EarlyStopping:
    """The best of the scores that a model had, and the weights behind it.

    Args:
        patience: scores in a row without a gain, after which it is time to stop.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best = -math.inf
        self._waited = 0
        self._weights: dict[str, Tensor] | None = None

    def saw(self, score: float, model: nn.Module) -> None:
        """Notes what the model, as it is now, scores."""
        if score > self._best:
            self._best, self._waited = score, 0
            self._weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        else:
            self._waited += 1

    def exhausted(self) -> bool:
        return self._waited >= self._patience

    def give_best(self, model: nn.Module) -> None:
        """Gives the model its best weights back, and begins anew: what comes next has a best of its own."""
        if self._weights is not None:
            model.load_state_dict(self._weights)
        self.restore(EarlyStopping(self._patience).state())

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited, "weights": self._weights}

    def restore(self, state: dict[str, Any]) -> None:
        self._best, self._waited, self._weights = state["best"], state["waited"], state["weights"]
