"""A mean of the weights over the last part of a training, which is better than the weights of any single step.

The steps may then be as large at the end as at the beginning, so that nobody needs to know beforehand how long a
training will be: at any time the mean is what a training of that length would have ended with, or close to it
(power-function averages: Karras et al., CVPR 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_POWER = 7.0  # a step's weight rises with this power of its number: about the last tenth of the steps count

Weights = Sequence[Tensor]


class Average:
    """The mean of some parameters over the steps.

    Args:
        parameters: in the memory that their mean will lie in, too.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = parameters
        self._means = [parameter.detach().clone() for parameter in parameters]
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the parameters as they are after one more step."""
        self._steps += 1
        weight = 1 - (1 - 1 / self._steps) ** (_POWER + 1)
        for mean, parameter in zip(self._means, self._parameters, strict=True):
            mean.lerp_(parameter, weight)

    def copy(self) -> Weights:
        """The mean as it is."""
        return [mean.clone() for mean in self._means]

    @contextmanager
    def given(self, weights: Weights | None = None) -> Iterator[None]:
        """Within it the parameters are these weights, by default the mean; after it they are what they were."""
        kept = [parameter.detach().clone() for parameter in self._parameters]
        self._set(self._means if weights is None else weights)
        try:
            yield
        finally:
            self._set(kept)

    @torch.no_grad()
    def _set(self, weights: Weights) -> None:
        for parameter, weight in zip(self._parameters, weights, strict=True):
            parameter.copy_(weight)

    def state(self) -> dict[str, Any]:
        return {"steps": self._steps, "means": list(self._means)}

    def restore(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
        for mean, saved in zip(self._means, state["means"], strict=True):
            mean.copy_(saved)
