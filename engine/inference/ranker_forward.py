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

from engine.kernel_cache import record
from engine.model.recommender import Recommender
from engine.numeric.dense import floats, gelu_all, inner, project_four
from engine.state.kernels import compiled

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]

_GELU_SLOPES = (-0.13, 1.13)  # the slope of GELU lies between these


@record("f8", "f8")
class Slope(NamedTuple):
    """Bounds of the change of a score by a change of the cosine, all features alike."""

    least: float
    most: float


@record("f4[:,::1]", "f4[::1]", "f4[::1]", "f4[:,::1]", "f4[::1]", "f4[::1]", "f4", "f4", "f4")
class RankerWeights(NamedTuple):
    """The layers as the compiled pass takes them.

    Attributes:
        features: [FEATURES, h] of the first layer.
        session: [h] of the first layer, for the session's score.
        bias: [h].
        middle, middle_bias: [h, h] and [h].
        last, last_bias: [h], and one number.
        scale: what makes a score of a cosine.
        own: by which the session's score counts beside the network.
    """

    features: Floats
    session: Floats
    bias: Floats
    middle: Floats
    middle_bias: Floats
    last: Floats
    last_bias: np.float32
    scale: np.float32
    own: np.float32


class RankerForward:
    """The ranker of one model.

    Attributes:
        weights: of its layers.
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
        self.weights = RankerWeights(
            floats((weight[:, 1:] * factor[1:]).T),
            floats(weight[:, 0] * factor[0] / 8.0),
            floats(first.bias.detach().double() + weight @ offset),
            floats(ranker.middle.weight.T),
            floats(ranker.middle.bias),
            floats(ranker.score.weight[0]),
            np.float32(float(ranker.score.bias)),
            np.float32(float(model.logits(torch.ones(())))),
            np.float32(float(ranker.session)),
        )
        self.slope = self._bounds_of_slope()

    def score(self, cosine: Floats, features: Floats) -> Floats:
        """[B, C] scores from the session's cosines [B, C] and the features [B, C, FEATURES]."""
        size = np.full(len(cosine), cosine.shape[1])
        return score_rows(self.weights, np.ascontiguousarray(cosine), np.ascontiguousarray(features), size)

    def _bounds_of_slope(self) -> Slope:
        """By interval arithmetic: each GELU may have any of its slopes."""
        of = self.weights
        least, most = of.session, of.session  # [h] of what goes into the first GELU, by the session's score
        for weight in (of.middle, of.last[:, None]):
            slopes = np.multiply.outer(np.array([least, most]), np.array(_GELU_SLOPES)).transpose(0, 2, 1)
            ends = slopes.min((0, 1))[:, None] * weight, slopes.max((0, 1))[:, None] * weight  # [h, next h]
            least, most = np.minimum(*ends).sum(0), np.maximum(*ends).sum(0)
        scale, own = float(of.scale), float(of.own)
        return Slope(scale * (own + float(least[0])), scale * (own + float(most[0])))


@compiled("f4[:,::1](RankerWeights, f4[:,::1], f4[:,:,::1], i8[::1])")
def score_rows(weights: RankerWeights, cosine: Floats, features: Floats, size: Longs) -> Floats:
    """[B, C] see `RankerForward.score`. A candidate's score depends on its own row alone, to the last bit.

    Args:
        size: [B] how many candidates each user has; 0 is the score of what is behind the last.
    """
    hidden, middle = np.empty((4, len(weights.bias)), np.float32), np.empty((4, len(weights.middle_bias)), np.float32)
    made, four = np.zeros(cosine.shape, np.float32), np.zeros((4, features.shape[2]), np.float32)
    for b in range(cosine.shape[0]):
        for first in range(0, size[b], 4):
            rows = min(4, size[b] - first)
            for r in range(4):  # Behind the last it is computed once more, for nobody.
                at = min(first + r, size[b] - 1)
                session = weights.scale * cosine[b, at]
                for i in range(four.shape[1]):
                    four[r, i] = features[b, at, i]
                for i in range(hidden.shape[1]):
                    hidden[r, i] = weights.bias[i] + session * weights.session[i]
                for i in range(middle.shape[1]):
                    middle[r, i] = weights.middle_bias[i]
            project_four(four, weights.features, hidden)
            for r in range(4):
                gelu_all(hidden[r])
            project_four(hidden, weights.middle, middle)
            for r in range(rows):
                gelu_all(middle[r])
                own = weights.own * weights.scale * cosine[b, first + r]
                made[b, first + r] = own + inner(middle[r], weights.last) + weights.last_bias
    return made
