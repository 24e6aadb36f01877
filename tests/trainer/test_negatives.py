from __future__ import annotations

import torch

from trainer.negatives import NegativeSampler


def test_items_are_drawn_as_often_as_log_inclusion_says() -> None:
    sampler = NegativeSampler(torch.tensor([50, 30, 20, 0, 0, -1]), uniform_share=0.25, draws=4)
    generator = torch.Generator().manual_seed(0)
    rounds = 3000
    seen = torch.zeros(6)
    for _ in range(rounds):
        drawn = sampler.draw(generator)
        assert len(drawn.unique()) == len(drawn)
        seen[drawn] += 1
    expected = sampler.log_inclusion.exp()
    assert (seen / rounds - expected).abs().max() < 0.04
    assert seen[5] == 0  # deleted


def test_inclusion_mixes_popularity_with_an_even_share() -> None:
    sampler = NegativeSampler(torch.tensor([3, 1, 0, -1]), uniform_share=0.3, draws=5)
    for item, probability in enumerate([0.7 * 0.75 + 0.1, 0.7 * 0.25 + 0.1, 0.1]):
        assert abs(sampler.log_inclusion[item].exp().item() - (1 - (1 - probability) ** 5)) < 1e-6


def test_without_any_event_all_items_are_alike() -> None:
    sampler = NegativeSampler(torch.zeros(4), uniform_share=0.0, draws=100)
    assert sampler.draw(torch.Generator().manual_seed(0)).tolist() == [0, 1, 2, 3]
