"""The ranker as it serves, beside the one that is trained."""

from __future__ import annotations

import pytest
import torch

from engine.inference.ranker_forward import RankerForward
from engine.model.features import FEATURES
from engine.model.recommender import ModelShape, Recommender


@pytest.mark.parametrize("candidates", [0, 1, 300])
def test_scores_are_those_of_the_trained_ranker(candidates):
    torch.manual_seed(1)
    model = Recommender(ModelShape(vocabulary=3, content_dim=8, kinds=2, dim=16)).eval().requires_grad_(False)
    norm = model.ranker.norm
    norm.running_mean.normal_(), norm.running_var.uniform_(0.1, 4.0)
    norm.weight.normal_(), norm.bias.normal_()
    model.ranker.session.fill_(0.7)
    cosine, features = torch.rand(5, candidates) * 2 - 1, torch.randn(5, candidates, FEATURES)
    got = torch.from_numpy(RankerForward(model).score(cosine.numpy(), features))
    torch.testing.assert_close(got, model.ranker(model.logits(cosine), features), atol=1e-4, rtol=1e-5)
