"""The ranker's network with all that does not depend on a candidate multiplied out beforehand.

The norm before the first layer is one factor and one offset per feature, so it is part of that layer here; the
session's score, which the ranker divides, norms and joins with the features, is a product of its own. The result is
that of `Ranker`, which training uses.

Shapes: B users, C candidates of each, h hidden width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from engine.inference.dense import floats
from engine.inference.elementary import gelu
from engine.model.recommender import Recommender
from engine.state.kernels import compiled

Floats = NDArray[np.float32]

# Candidates of one list that go through a layer together: always so many, with zeros behind the last. How a product is
# rounded depends on how many rows it has, and a list must not depend on which others it is made with.
_AT_ONCE = 128
_GELU_SLOPES = (-0.13, 1.13)  # the slope of GELU lies between these


class Slope(NamedTuple):
    """Bounds of the change of a score by a change of the cosine, all features alike."""

    least: float
    most: float


class RankerForward:
    """The ranker of one model.

    Attributes:
        slope: of the scores.
    """

    def __init__(self, model: Recommender) -> None:
        ranker = model.ranker
        norm, first = ranker.norm, ranker.hidden
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
        offset = norm.bias.detach().double() - norm.running_mean.double() * factor
        weight = first.weight.detach().double()  # [h, 1 + FEATURES]
        self._scale = float(model.logits(torch.ones(())))
        self._session = floats(weight[:, 0] * factor[0] / 8.0)
        self._features = floats((weight[:, 1:] * factor[1:]).T)
        self._bias = floats(first.bias.detach().double() + weight @ offset)
        self._middle, self._middle_bias = floats(ranker.middle.weight.T), floats(ranker.middle.bias)
        self._last = floats(ranker.score.weight[0])
        self._own, self._last_bias = float(ranker.session), float(ranker.score.bias)
        self.slope = self._bounds_of_slope()

    def score(self, cosine: Floats, features: Floats) -> Floats:
        """[B, C] scores from the session's cosines [B, C] and the features [B, at least C, FEATURES].

        Features of `padded_width(C)` rows, zeros behind the last, are not copied.
        """
        users, width = cosine.shape
        padded = padded_width(width)
        if features.shape[1] != padded or not features.flags.c_contiguous:
            given, features = features, np.zeros((users, padded, features.shape[2]), np.float32)
            features[:, :width] = given[:, :width]
        score: Floats = cosine * np.float32(self._scale)
        parts = features.reshape(-1, _AT_ONCE, features.shape[2])  # each is a product of its own
        hidden: Floats = np.matmul(parts, self._features).reshape(users, padded, -1)  # [B, C or more, h]
        _first(hidden, self._bias, self._session, score)
        hidden = np.matmul(hidden.reshape(len(parts), _AT_ONCE, -1), self._middle).reshape(hidden.shape)
        _last(hidden, self._middle_bias, self._last, self._last_bias, self._own, score)
        return score

    def _bounds_of_slope(self) -> Slope:
        """By interval arithmetic: each GELU may have any of its slopes."""
        least, most = self._session, self._session  # [h] of what goes into the first GELU, by the session's score
        for weight in (self._middle, self._last[:, None]):
            slopes = np.multiply.outer(np.array([least, most]), np.array(_GELU_SLOPES)).transpose(0, 2, 1)
            ends = slopes.min((0, 1))[:, None] * weight, slopes.max((0, 1))[:, None] * weight  # [h, next h]
            least, most = np.minimum(*ends).sum(0), np.maximum(*ends).sum(0)
        return Slope(self._scale * (self._own + float(least[0])), self._scale * (self._own + float(most[0])))


def padded_width(candidates: int) -> int:
    """The rows that so many candidates take in a product."""
    return max(1, -(-candidates // _AT_ONCE)) * _AT_ONCE


@compiled("void(f4[:,:,::1], f4[::1], f4[::1], f4[:,::1])")
def _first(hidden: Floats, bias: Floats, weight: Floats, session: Floats) -> None:
    """Turns the rows of `hidden` [B, C or more, h] into gelu(row + bias + its session [B, C] * weight)."""
    for b in range(len(session)):
        for c in range(session.shape[1]):
            for i in range(hidden.shape[2]):
                hidden[b, c, i] = gelu(hidden[b, c, i] + bias[i] + session[b, c] * weight[i])


@compiled("void(f4[:,:,::1], f4[::1], f4[::1], f4, f4, f4[:,::1])", any_order=True)
def _last(hidden: Floats, bias: Floats, weight: Floats, last_bias: float, own: float, session: Floats) -> None:
    """Turns `session` [B, C] into scores, from the middle layer's products `hidden` [B, C or more, h]."""
    for b in range(len(session)):
        for c in range(session.shape[1]):
            for i in range(hidden.shape[2]):
                hidden[b, c, i] = gelu(hidden[b, c, i] + bias[i])
            total = np.float32(0)
            for i in range(hidden.shape[2]):
                total += hidden[b, c, i] * weight[i]
            session[b, c] = own * session[b, c] + total + last_bias
