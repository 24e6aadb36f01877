"""The ranker's network with all that does not depend on a candidate multiplied out beforehand.

The norm before the first layer is one factor and one offset per feature, so it is part of that layer here; the
session's score, which the ranker divides, norms and joins with the features, is a product of its own. The result is
that of `Ranker`, which training uses.

Shapes: B users, C candidates of each, h hidden width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engine.model.recommender import Recommender

Floats = NDArray[np.float32]


class RankerForward:
    """The ranker of one model."""

    def __init__(self, model: Recommender) -> None:
        ranker = model.ranker
        norm, first = ranker.norm, ranker.hidden
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
        offset = norm.bias.detach().double() - norm.running_mean.double() * factor
        weight = first.weight.detach().double()  # [h, 1 + FEATURES]
        self._scale = float(model.logits(torch.ones(())))
        self._session = (weight[:, 0] * factor[0] / 8.0).float()
        self._features = (weight[:, 1:] * factor[1:]).T.float().contiguous()
        self._bias = (first.bias.detach().double() + weight @ offset).float()
        self._middle = ranker.middle.weight.detach().T.contiguous(), ranker.middle.bias.detach()
        self._last = ranker.score.weight.detach()[0]
        self._own, self._last_bias = float(ranker.session), float(ranker.score.bias)

    @torch.inference_mode()
    def score(self, cosine: Floats, features: Tensor) -> Floats:
        """[B, C] scores from the session's cosines [B, C] and the features [B, C, FEATURES]."""
        session = torch.from_numpy(cosine.reshape(-1) * np.float32(self._scale))
        x = torch.addmm(self._bias, features.flatten(0, 1), self._features).addr_(session, self._session)
        x = F.gelu(torch.addmm(self._middle[1], F.gelu(x), self._middle[0]))
        score: Floats = torch.mv(x, self._last).add_(session, alpha=self._own).add_(self._last_bias).numpy()
        return score.reshape(cosine.shape)
