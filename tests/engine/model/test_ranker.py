from __future__ import annotations

import torch

from engine.features.table import FEATURES
from engine.model.ranker import Ranker


def test_ranker_scores_every_candidate() -> None:
    assert Ranker()(torch.zeros(2, 3), torch.zeros(2, 3, FEATURES)).shape == (2, 3)


def test_a_trained_ranker_scores_a_candidate_whatever_stands_beside_it() -> None:
    ranker, score, features = Ranker().eval(), torch.randn(1, 5), torch.randn(1, 5, FEATURES)
    alone = torch.cat([ranker(score[:, at : at + 1], features[:, at : at + 1]) for at in range(5)], dim=1)
    torch.testing.assert_close(ranker(score, features), alone)
