"""The ranker as it serves, beside the one that is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.features.table import FEATURES
from engine.inference.ranker_forward import RankerForward
from engine.model.recommender import ModelShape, Recommender


def random_model(seed: int) -> Recommender:
    torch.manual_seed(seed)
    model = Recommender(ModelShape(vocabulary=3, content_dim=8, kinds=2, dim=16)).eval().requires_grad_(False)
    norm = model.ranker.norm
    norm.running_mean.normal_(), norm.running_var.uniform_(0.1, 4.0)
    norm.weight.normal_(), norm.bias.normal_()
    model.ranker.session.fill_(0.7)
    return model


@pytest.mark.parametrize("candidates", [0, 1, 300])
def test_scores_are_those_of_the_trained_ranker(candidates):
    model = random_model(1)
    cosine, features = torch.rand(5, candidates) * 2 - 1, torch.randn(5, candidates, FEATURES)
    got = torch.from_numpy(RankerForward(model).score(cosine.numpy(), features.numpy()))
    torch.testing.assert_close(got, model.ranker(model.logits(cosine), features), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("wider", [0, 1, 100, 1000])
def test_a_list_scores_the_same_with_whatever_others_it_is_made(wider):
    """Bit for bit: candidates of other lists, and the padding that they bring, are rows of other products."""
    ranker = RankerForward(random_model(1))
    cosine, features = torch.rand(7, 300 + wider) * 2 - 1, torch.randn(7, 300 + wider, FEATURES)
    together = ranker.score(cosine.numpy(), features.numpy())
    for b in range(7):
        alone = ranker.score(cosine[b : b + 1, :300].numpy(), features[b : b + 1, :300].numpy())
        assert alone[0].tolist() == together[b, :300].tolist()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("own", [0.7, 0.0, -0.7])
def test_no_score_changes_faster_with_the_cosine_than_the_slope_says(seed, own):
    model = random_model(seed)
    model.ranker.session.fill_(own)
    ranker = RankerForward(model)
    cosine = torch.linspace(-1, 1, 400).repeat(50, 1)  # finely along one candidate of each of 50 users
    features = 2 * torch.randn(50, 1, FEATURES).expand(50, 400, FEATURES)
    score = ranker.score(cosine.numpy(), features.numpy()).astype(np.float64)
    slope = np.diff(score, axis=1) / np.diff(cosine.double().numpy(), axis=1)
    assert ranker.slope.least <= slope.min() + 0.05 and slope.max() - 0.05 <= ranker.slope.most
    assert slope.max() - slope.min() > 0.01 * (ranker.slope.most - ranker.slope.least), "no bound at all"


def test_the_slope_of_a_ranker_that_trusts_the_session_alone_is_known():
    model = random_model(1)
    model.ranker.score.weight.zero_()
    assert RankerForward(model).slope == pytest.approx((0.7 * float(model.logits(torch.ones(()))),) * 2)
