"""Where tensors are computed: a CPU always, a GPU for work in bulk where one is named."""

from __future__ import annotations

import torch

CPU = torch.device("cpu")


def check_device(setting: str, name: str) -> torch.device:
    """The device of that name, `cpu`, `cuda` or `cuda:N`.

    Args:
        setting: that it was read from.

    Raises:
        ValueError: there is none, or this build of torch can't use it.
    """
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = f"cuda:0 to cuda:{count - 1}" if count else "no GPU that this build of torch can use"
            raise ValueError(f"{setting} must be cpu or a GPU that is there, got {name!r}; there is {found}")
    return device
