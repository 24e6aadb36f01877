"""Training on another device than the one that log and graph lie on ends with the same weights."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from tests.far import FAR, far_device
from tests.trainer.planted import last_of, planted_log, replayed, small_config
from trainer.config import TrainSection
from trainer.parallel import Ranks
from trainer.progress import Progress
from trainer.train import train

DATA = replayed(planted_log(400)).data()
DEVICES = [FAR.type, *(["cuda"] if torch.cuda.is_available() else [])]


def trained(config: TrainSection, device: str) -> dict[str, Tensor]:
    with far_device():
        found = last_of(
            train(DATA, config, None, threading.Event(), Progress(), ranks=Ranks(device=torch.device(device)))
        )
    assert found.weights.model.log_temperature.device.type == "cpu"
    return {**found.weights.model.state_dict(), "hits": torch.tensor(found.metrics["hit_rate@20"])}


def assert_same(there: dict[str, Tensor], here: dict[str, Tensor]) -> None:
    for name, tensor in here.items():
        assert torch.allclose(there[name], tensor, atol=1e-4), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("aggregation", "full_softmax"), [("attention", 0), ("mean", 1000)])
def test_the_trainer_trains_the_same_on_every_device(device: str, aggregation: str, full_softmax: int) -> None:
    config = small_config(
        max_steps=12, graph_share=0.3, batch=16, patience=3, refit=True, validate_steps=3, by_kind=True,
        augment_crop=0.3, augment_mask=0.2, augment_reorder=0.3, local_heads=1, aggregation=aggregation,
        full_softmax=full_softmax,
    )  # fmt: skip
    assert_same(trained(config, device), trained(config, "cpu"))
