"""When to stop: a training has not gained for some time, and its best weights are kept."""

from __future__ import annotations

import math
from typing import Any

from trainer.average import Weights


class EarlyStopping:
    """The best of the scores that weights had, and these weights.

    Args:
        patience: scores in a row without a gain, after which it is time to stop; 0: never.

    Attributes:
        best: -inf before the first score.
        weights, step: of the best score; None before the first.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._waited = 0
        self.best = -math.inf
        self.weights: Weights | None = None
        self.step: int | None = None

    def saw(self, score: float, weights: Weights, step: int) -> None:
        """Notes what the weights after a step score."""
        if score > self.best:
            self.best, self._waited, self.weights, self.step = score, 0, weights, step
        else:
            self._waited += 1

    def exhausted(self) -> bool:
        return 0 < self._patience <= self._waited

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self._waited, "weights": self.weights, "step": self.step}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self._waited, self.weights = state["best"], state["waited"], state["weights"]
        self.step = state["step"]
