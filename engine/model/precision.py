"""Dense layers that multiply in fewer bits than they were trained in, for a model that only serves.

Weights are converted once; embeddings, norms, attention's softmax and whatever is added stay float32, and so does what
goes in and comes out.

Shapes: n inputs, m outputs, R rows.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.config import Precision

M = TypeVar("M", bound=nn.Module)


def in_precision(module: M, precision: Precision) -> M:
    """A copy of `module` whose dense layers multiply in `precision`, for inference alone; for float32 itself."""
    if precision == "float32":
        return module
    make = Bfloat16Dense if precision == "bfloat16" else Int8Dense
    served = copy.deepcopy(module)
    for owner in list(served.modules()):
        for name, layer in list(owner.named_children()):
            # There is nothing to sum up in a layer of one input, and the library's int8 product of one is wrong.
            if isinstance(layer, nn.Linear) and layer.in_features > 1:
                setattr(owner, name, make(layer))
    return served


class Bfloat16Dense(nn.Module):
    """x @ weight.T + bias with both factors in bfloat16, summed up in float32 where the processor does."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.out_features = layer.out_features
        self.weight = nn.Parameter(layer.weight.detach().bfloat16(), requires_grad=False)  # [m, n]
        self.bias = nn.Parameter(layer.bias.detach().bfloat16(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x, 0, self.out_features)

    def part(self, x: Tensor, first: int, end: int) -> Tensor:
        """As `engine.model.layers.Dense.part`."""
        return F.linear(x.bfloat16(), self.weight[first:end], self.bias[first:end]).float()


class Int8Dense(nn.Module):
    """x @ weight.T + bias in int8, summed up in int32: a scale for each output's weights, and one for each row of x."""

    weight: Tensor  # [n, m]
    scale: Tensor  # [m]
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.out_features = layer.out_features
        weight = layer.weight.detach().float()
        scale = _scale(weight)  # [m, 1]
        self.register_buffer("weight", (weight / scale).round().to(torch.int8).T.contiguous())
        self.register_buffer("scale", scale.flatten())
        self.register_buffer("bias", layer.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x, 0, self.out_features)

    def part(self, x: Tensor, first: int, end: int) -> Tensor:
        """As `engine.model.layers.Dense.part`."""
        rows = x.reshape(-1, x.shape[-1])
        scale = _scale(rows)  # [R, 1]
        whole = torch._int_mm((rows / scale).round_().to(torch.int8), self.weight[:, first:end])
        y = whole.float().mul_(scale).mul_(self.scale[first:end]).add_(self.bias[first:end])
        return y.view(*x.shape[:-1], end - first)


def _scale(rows: Tensor) -> Tensor:
    """[R, 1] what 1 in int8 stands for, so that the largest of each row is 127."""
    return rows.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
