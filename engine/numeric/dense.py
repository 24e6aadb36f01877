"""The layers of a network for one row, compiled: what a handful of rows needs in place of a tensor call for each.

A row's result depends on that row alone, not on what is computed with it.

Shapes: n inputs, m outputs of one row; B users, C candidates of each, M rows of a table, d width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.kernel_cache import compiled
from engine.numeric.elementary import exp, gelu

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]


def floats(values: Tensor) -> Floats:
    """Weights as the compiled layers take them."""
    return np.ascontiguousarray(values.detach().numpy(), np.float32)


@compiled("void(f4[::1], f4[:,::1], f4[::1])", any_order=True)
def project(x: Floats, weight: Floats, out: Floats) -> None:
    """Adds x [n] @ weight [n, m] to `out` [m]."""
    n, m = weight.shape
    fours = n - n % 4
    for k in range(0, fours, 4):  # four inputs at a time: `out` is loaded and stored a quarter as often
        for o in range(m):
            out[o] += (x[k] * weight[k, o] + x[k + 1] * weight[k + 1, o]) + (
                x[k + 2] * weight[k + 2, o] + x[k + 3] * weight[k + 3, o]
            )
    for k in range(fours, n):
        for o in range(m):
            out[o] += x[k] * weight[k, o]


@compiled("void(f4[:,::1], f4[:,::1], f4[:,::1])", fused=True)
def project_four(x: Floats, weight: Floats, out: Floats) -> None:
    """Adds x [4, n] @ weight [n, m] to `out` [4, m]: a weight that is loaded serves four rows.

    What becomes of a row depends on that row alone.
    """
    n, m = weight.shape
    a, b, c, d = out[0], out[1], out[2], out[3]
    fours = n - n % 4
    for k in range(0, fours, 4):
        for o in range(m):
            w, y, z, v = weight[k, o], weight[k + 1, o], weight[k + 2, o], weight[k + 3, o]
            a[o] = a[o] + x[0, k] * w + x[0, k + 1] * y + x[0, k + 2] * z + x[0, k + 3] * v
            b[o] = b[o] + x[1, k] * w + x[1, k + 1] * y + x[1, k + 2] * z + x[1, k + 3] * v
            c[o] = c[o] + x[2, k] * w + x[2, k + 1] * y + x[2, k + 2] * z + x[2, k + 3] * v
            d[o] = d[o] + x[3, k] * w + x[3, k + 1] * y + x[3, k + 2] * z + x[3, k + 3] * v
    for k in range(fours, n):
        for r in range(4):
            for o in range(m):
                out[r, o] += x[r, k] * weight[k, o]


@compiled("void(f4[::1], f4[::1], f4[::1], f4, f4[::1])", any_order=True)
def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float, out: Floats) -> None:
    """Fills `out` [n] with the layer norm of x [n]."""
    n = len(x)
    mean = np.float32(0)
    for k in range(n):
        mean += x[k]
    mean /= np.float32(n)
    square = np.float32(0)
    for k in range(n):
        square += (x[k] - mean) * (x[k] - mean)
    scale = np.float32(1) / np.sqrt(square / np.float32(n) + eps)
    for k in range(n):
        out[k] = (x[k] - mean) * scale * weight[k] + bias[k]


@compiled("void(f4[::1])")
def gelu_all(x: Floats) -> None:
    """The exact GELU of each, in place."""
    for k in range(len(x)):
        x[k] = gelu(x[k])


@compiled("f4(f4[::1], f4)")
def exp_all(x: Floats, most: Any) -> Any:
    """Turns each into e ** (x - most), and returns their sum."""
    for k in range(len(x)):
        x[k] = exp(x[k] - most)
    total = np.float32(0)
    for k in range(len(x)):
        total += x[k]
    return total


@compiled("f4(f4[::1], f4[::1])", any_order=True)
def inner(x: Floats, y: Floats) -> Any:
    """The product of two vectors [d]: the one way in which scores of the index and of lists are computed.

    A library's matrix product of several queries rounds otherwise than its product of one, and otherwise on each
    processor. So scores that are compared with each other, or decide about what is listed, all come from here.
    """
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


def rounding(dim: int) -> float:
    """By how much two ways to compute the product of two vectors of length 1 and width `dim` may differ at most."""
    return dim * 2.0**-23


def cosines(table: Floats, rows: Longs, queries: Floats) -> Floats:
    """[B, C] products of each query [B, d] with those of `rows` [B, C] of a table [M, d]."""
    made = np.empty(rows.shape, np.float32)
    _cosines(table, rows, np.ascontiguousarray(queries), made)
    return made


@compiled("void(f4[:,::1], i8[:,:], f4[:,::1], f4[:,::1])")
def _cosines(table: Floats, rows: Longs, queries: Floats, made: Floats) -> None:
    for b in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            made[b, c] = inner(table[rows[b, c]], queries[b])
