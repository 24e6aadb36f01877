"""Compiled layers of one row do what the library's do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.numeric.dense import exp_all, gelu_all, layer_norm, project, project_four


def row(n: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 5), (4, 8), (64, 128), (7, 64)])
def test_a_projection_adds_to_what_is_there(inputs: int, outputs: int) -> None:
    layer, x = nn.Linear(inputs, outputs).requires_grad_(False), row(inputs)
    out = layer.bias.numpy().copy()
    project(x.numpy(), np.ascontiguousarray(layer.weight.numpy().T), out)
    torch.testing.assert_close(torch.from_numpy(out), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 5), (4, 8), (45, 64), (64, 64)])
def test_four_rows_are_projected_as_each_would_be_beside_any_others(inputs: int, outputs: int) -> None:
    layer, x = nn.Linear(inputs, outputs).requires_grad_(False), torch.stack([row(inputs, at + 0.5) for at in range(4)])
    weight = np.ascontiguousarray(layer.weight.numpy().T)
    together, alone = (np.tile(layer.bias.numpy(), (4, 1)) for _ in range(2))
    project_four(x.numpy(), weight, together)
    torch.testing.assert_close(torch.from_numpy(together), layer(x), atol=1e-5, rtol=1e-5)
    project_four(x[3].repeat(4, 1).numpy(), weight, alone)
    assert alone.tolist() == [together[3].tolist()] * 4


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_norm_and_gelu(scale: float) -> None:
    norm, x = nn.LayerNorm(64).requires_grad_(False), row(64, scale)
    norm.weight.copy_(row(64))
    norm.bias.copy_(row(64, 0.1))
    out = np.empty(64, np.float32)
    layer_norm(x.numpy(), norm.weight.numpy(), norm.bias.numpy(), norm.eps, out)
    torch.testing.assert_close(torch.from_numpy(out), norm(x), atol=1e-5, rtol=1e-5)
    bent = x.numpy().copy()
    gelu_all(bent)
    torch.testing.assert_close(torch.from_numpy(bent), F.gelu(x), atol=1e-6, rtol=1e-5)


def test_exponentials_and_their_sum() -> None:
    x = row(50).numpy()
    expected = np.exp(x - 2.0)
    total = exp_all(x, np.float32(2.0))
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    assert total == pytest.approx(expected.sum(), rel=1e-6)
