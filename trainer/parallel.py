"""One training in several processes, as torchrun starts them: each takes its share of every step's windows.

All ranks hold the same model and draw the same windows and negatives. A step does what one process with the same batch
would do, but for the order of sums; only what dropout hides is drawn apart.

Shapes: P parameters.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from engine.model.device import CPU, check_device
from trainer.dataset import Windows


class Ranks:
    """The processes of a training. Every method but `share` is to be called by all of them alike.

    Attributes:
        rank: from 0; the first is the one that validates and writes.
        size: 1 where it is alone, and every method then costs nothing.
        device: that this one trains on.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device = CPU) -> None:
        self.rank = rank
        self.size = size
        self.device = device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, windows: Windows) -> Windows:
        """The windows of this rank; none where there are fewer windows than ranks."""
        return windows.select(torch.arange(self.rank, len(windows), self.size)) if self.size > 1 else windows

    def agree(self, stopped: bool, due: bool, at: float) -> tuple[bool, bool, float]:
        """Whether any rank was stopped, and what the first says of the other two: clocks differ, steps must not."""
        if self.size == 1:
            return stopped, due, at
        said = torch.tensor([stopped, due and self.is_first, at if self.is_first else 0.0], dtype=torch.float64)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        any_stopped, first_due, first_at = said.tolist()
        return bool(any_stopped), bool(first_due), first_at

    def of_first(self, compute: Callable[[], float]) -> float:
        """What `compute` returns on the first rank, where alone it is called."""
        value = torch.tensor(compute() if self.is_first else 0.0, dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(value, 0)
        return value.item()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each rank, in order; all of one shape and type."""
        if self.size == 1:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(tensors, tensor)
        return tensors

    def is_same(self, text: str) -> bool:
        """Whether all ranks have the same text."""
        digest = torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        return all(torch.equal(digest, other) for other in self.gather(digest))

    def combine(self, parameters: Sequence[Parameter], loss: float, weight: int) -> float:
        """Makes each gradient, and the loss that is returned, the mean over all ranks.

        Args:
            parameters: [P]; one without a gradient on any rank stays without.
            loss: mean over the `weight` targets of this rank's share.
        """
        if self.size == 1:
            return loss
        device = parameters[0].device
        has_grad = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=device)  # [P]
        sums = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() * weight for p in parameters]
        # One message a step: gradients, who has one, how many targets, and their losses.
        message = torch.cat([*sums, has_grad, torch.tensor([float(weight), loss * weight], device=device)])
        dist.all_reduce(message)
        *means, has_grad, totals = message.split([*(p.numel() for p in parameters), len(parameters), 2])
        targets, losses = totals.tolist()
        for parameter, mean, anywhere in zip(parameters, means, has_grad.tolist(), strict=True):
            parameter.grad = (mean / max(1.0, targets)).view_as(parameter) if anywhere else None
        return losses / max(1.0, targets)


@contextmanager
def joined(name: str = CPU.type) -> Iterator[Ranks]:
    """The ranks that torchrun started this process among, or this process alone.

    Args:
        name: of the device to train on; where it is `cuda`, each process of a machine has a GPU of its own.

    Raises:
        ValueError: the device is not there.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ
    if name == "cuda" and not alone:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = check_device("trainer.device", name)
    if alone:
        yield Ranks(device=device)
        return
    if device == CPU:
        dist.init_process_group("gloo")
    else:
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
