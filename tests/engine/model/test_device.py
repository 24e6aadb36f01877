from __future__ import annotations

import pytest
import torch

from engine.model.device import CPU, check_device
from tests.far import FAR, far_device


def test_a_cpu_is_always_there() -> None:
    assert check_device("inference.device", "cpu") == CPU


@pytest.mark.parametrize(("there", "message"), [(0, "there is no GPU that"), (2, "there is cuda:0 to cuda:1")])
def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, there: int, message: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(
        ValueError, match=f"^trainer.device must be cpu or a GPU that is there, got 'cuda:2'; {message}"
    ):
        check_device("trainer.device", "cuda:2")


def test_of_the_gpus_that_are_there_the_first_is_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert check_device("trainer.device", "cuda") == torch.device("cuda")
    assert check_device("trainer.device", "cuda:0") == torch.device("cuda:0")


def test_the_device_of_the_tests_refuses_what_a_gpu_would() -> None:
    near = torch.arange(6.0).view(2, 3)
    with far_device():
        far = near.to(FAR)
        for mixed in (lambda: far + near, lambda: near @ far.T, lambda: torch.cat([far, near])):
            with pytest.raises(RuntimeError, match="two devices"):
                mixed()
        with pytest.raises(RuntimeError, match="numpy"):
            far.numpy()
        assert torch.equal(
            (far * torch.tensor(2.0) + torch.ones(3, device=FAR))[torch.tensor([1])].cpu(), near[1:] * 2 + 1
        )
