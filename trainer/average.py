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
        table: [R, d] the one of them of which a step moves only some rows. The mean of a row that stays where it is
            nears it by the same rule at each step, so that it need not be computed before the row is moved.
    """

    def __init__(self, parameters: Sequence[Parameter], table: Parameter | None = None) -> None:
        self._parameters = parameters
        self._means = [parameter.detach().clone() for parameter in parameters]
        self._at = next((at for at, parameter in enumerate(parameters) if parameter is table), None)
        # [R] the step whose mean each row of the table has.
        self._computed = torch.zeros(0 if table is None else len(table), dtype=torch.int64)
        self._steps = 0

    @torch.no_grad()
    def before_step(self, rows: Tensor | None) -> None:
        """Computes the means of the rows that the step to come moves."""
        if self._at is not None and rows is not None:
            self._means[self._at][rows] = self._mean_of(self._at, rows)

    @torch.no_grad()
    def update(self, rows: Tensor | None = None) -> None:
        """Takes in the parameters as they are after one more step, of the table its moved `rows` alone."""
        self._steps += 1
        weight = 1 - (1 - 1 / self._steps) ** (_POWER + 1)
        for at, (mean, parameter) in enumerate(zip(self._means, self._parameters, strict=True)):
            if at == self._at and rows is not None:
                mean[rows] = mean[rows].lerp_(parameter[rows], weight)
                self._computed[rows.cpu()] = self._steps
            else:
                mean.lerp_(parameter, weight)

    def copy(self) -> Weights:
        """The mean as it is."""
        return [mean.clone() if mean is kept else mean for mean, kept in zip(self._now(), self._means, strict=True)]

    def _now(self) -> Weights:
        """The mean as it is, where that is at hand in the memory that it goes on in."""
        return [self._mean_of(at, slice(None)) if at == self._at else mean for at, mean in enumerate(self._means)]

    @torch.no_grad()
    def _mean_of(self, at: int, rows: Tensor | slice) -> Tensor:
        """The means of some rows of the table, none of which has moved since theirs were computed."""
        mean, parameter = self._means[at][rows], self._parameters[at][rows]
        computed = self._computed[rows.cpu() if isinstance(rows, Tensor) else rows]
        share = (computed.double() / max(1, self._steps)) ** (_POWER + 1)
        return torch.lerp(parameter, mean, share.to(mean)[:, None])

    @contextmanager
    def given(self, weights: Weights | None = None) -> Iterator[None]:
        """Within it the parameters are these weights, by default the mean; after it they are what they were."""
        kept = [parameter.detach().clone() for parameter in self._parameters]
        self._set(self._now() if weights is None else weights)
        try:
            yield
        finally:
            self._set(kept)

    @torch.no_grad()
    def _set(self, weights: Weights) -> None:
        for parameter, weight in zip(self._parameters, weights, strict=True):
            parameter.copy_(weight)

    def state(self) -> dict[str, Any]:
        return {"steps": self._steps, "means": list(self._means), "computed": self._computed}

    def restore(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
        for mean, saved in zip(self._means, state["means"], strict=True):
            mean.copy_(saved)
        self._computed.copy_(state["computed"])
