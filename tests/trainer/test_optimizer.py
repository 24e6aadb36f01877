"""Steps that move all rows of the learned ids, and steps that move those which were used."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.model.recommender import ModelShape, Recommender
from trainer.optimizer import Optimizer

RATE = 0.01
SHAPE = ModelShape(vocabulary=9, content_dim=2, kinds=2, dim=8, heads=1, blocks=1, window=4)


def fitted(by_rows: bool, steps: list[list[int]], scale: float = 1.0) -> tuple[Recommender, Optimizer]:
    """Its steps look at words, each at a few of them."""
    torch.manual_seed(0)
    model = Recommender(SHAPE)
    optimizer = Optimizer(model, RATE, 0.1, by_rows)
    for words in steps:
        optimizer.clear()
        if words:
            (scale * model.graph.base(torch.tensor(words), torch.zeros(len(words), 2))).pow(3).sum().backward()
        optimizer.step(RATE)
    return model, optimizer


def ids(model: Recommender) -> Tensor:
    return model.graph.identity.weight.detach()


def test_where_each_step_uses_all_rows_both_ways_are_one() -> None:
    everything = [list(range(1, 10))] * 4
    for scale in (1.0, 1000.0):  # with gradients that are shortened, too
        plain, one = fitted(False, everything, scale)
        by_rows, other = fitted(True, everything, scale)
        for name, tensor in plain.state_dict().items():
            torch.testing.assert_close(by_rows.state_dict()[name], tensor, msg=name)
        for got, want in zip(other.average.copy(), one.average.copy(), strict=True):
            torch.testing.assert_close(got, want)


def test_only_the_rows_that_a_step_used_move() -> None:
    start, _ = fitted(True, [])
    after, _ = fitted(True, [[1, 2, 2, 0], [2, 3]])
    moved = (ids(after) != ids(start)).any(dim=1).nonzero().squeeze(1).tolist()
    assert moved == [1, 2, 3]
    again, _ = fitted(True, [[1, 2, 2, 0], [2, 3], [4]])
    assert torch.equal(ids(again)[1:4], ids(after)[1:4])  # by all rows, momentum would carry them on
    momentum, _ = fitted(False, [[1, 2, 2, 0], [2, 3], [4]])
    assert not torch.equal(ids(momentum)[1:4], ids(again)[1:4])


def test_a_step_without_any_target_moves_nothing() -> None:
    before, _ = fitted(True, [[1, 2]])
    after, optimizer = fitted(True, [[1, 2], []])
    assert torch.equal(ids(after), ids(before))
    assert all(bool(torch.isfinite(mean).all()) for mean in optimizer.average.copy())
