"""A training that has left the numbers: its loss, or a weight, is nan or infinite, and nothing mends that later."""

from __future__ import annotations

import math

import torch
from torch import nn


class Diverged(RuntimeError):
    """A training can't go on; the message names the step and the setting that is most likely the reason.

    Args:
        stage: the part of the training, such as "encoders".
        step: the number of the step, from 1.
        got: what is wrong at it.
        setting: the setting that most likely is the reason, as the user writes it, and its value `rate`.
    """

    def __init__(self, stage: str, step: int, got: str, setting: str, rate: float) -> None:
        super().__init__(
            f"the training of the {stage} has diverged at step {step}, {got}: {setting} is probably too high,"
            f" got {rate:g}"
        )
        self.stage, self.step, self.got, self.rate = stage, step, got, rate


def check_loss(loss: float, stage: str, step: int, setting: str, rate: float) -> None:
    """Raises Diverged where a loss is not finite."""
    if not math.isfinite(loss):
        raise Diverged(stage, step, f"where its loss is {loss}", setting, rate)


def check_weights(model: nn.Module, stage: str, step: int, setting: str, rate: float) -> None:
    """Raises Diverged where a weight is not finite, as the last step of a training may leave it without a loss."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise Diverged(stage, step, "which leaves weights that are not finite", setting, rate)
