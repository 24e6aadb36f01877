from __future__ import annotations

import torch

from engine.model.recommender import ModelShape, Recommender
from tests.trainer.planted import decoded, replayed
from trainer.forward import ItemForward


def test_the_unknown_item_is_one_that_neither_training_nor_the_catalog_has_seen() -> None:
    data = replayed(decoded(["ann"], ["new"], [1], [""], [])).data()
    model = Recommender(ModelShape(vocabulary=2, content_dim=16, kinds=8, dim=16)).eval()
    forward = ItemForward(model, torch.zeros(1, dtype=torch.int64), data.content)
    assert torch.equal(forward.unknown(), forward(torch.tensor([0]), None))
    known = ItemForward(model, torch.ones(1, dtype=torch.int64), data.content)
    assert not torch.equal(known.unknown(), known(torch.tensor([0]), None))
