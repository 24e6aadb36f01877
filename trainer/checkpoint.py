"""Where a training is, in a file: written while it goes on, and gone on from after it was ended.

The file is one of `torch.save`, read back as tensors and plain values only.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.model.device import CPU
from engine.private_files import make_private_folder
from trainer.atomic import write_atomically


def chance_of(device: torch.device) -> Tensor:
    """State of the generator that dropout on a device draws from."""
    return torch.get_rng_state() if device == CPU else torch.get_device_module(device).get_rng_state(device)


def restore_chance(device: torch.device, state: Tensor) -> None:
    """Goes back to a state that `chance_of` gave."""
    if device == CPU:
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)


_MAKE = 2  # rises where what a checkpoint holds has another form


class CheckpointError(ValueError):
    """A checkpoint that can't be gone on from; the message says why."""


class Checkpoint:
    """The file of one run.

    Args:
        run: all that the run depends on, as "data, name=value, ..."; a file of another run is refused.
        every_s: time from one save to when the next is due.
    """

    def __init__(self, path: Path, run: str, every_s: float = 0.0) -> None:
        self._path = path
        self._run = run
        self._every_s = every_s
        self._saved_s = time.monotonic()
        self._beside: list[Checkpoint] = []

    def __str__(self) -> str:
        return str(self._path)

    def beside(self, name: str) -> Checkpoint:
        """That of another part of the same run, in a file of its own."""
        other = Checkpoint(self._path.with_suffix(f".{name}{self._path.suffix}"), self._run, self._every_s)
        self._beside.append(other)
        return other

    def due(self) -> bool:
        return time.monotonic() - self._saved_s >= self._every_s

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the file, or leaves the one before where it is killed meanwhile."""
        make_private_folder(self._path.parent)
        write_atomically(self._path, lambda file: torch.save({"run": self._run, "make": _MAKE, **state}, file))
        self._saved_s = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What was saved last, in a CPU's memory, or None where there is no file.

        Raises:
            CheckpointError: the file is of another run, or none of a run.
        """
        if not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, CPU, weights_only=True)
            run = str(state["run"])
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, LookupError, TypeError) as error:
            raise CheckpointError(f"{self._path}: must be a checkpoint, got {type(error).__name__}") from None
        if run != self._run:
            had, has = run.split(", "), self._run.split(", ")
            theirs, ours = ([part for part in a if part not in b] for a, b in ((had, has), (has, had)))
            raise CheckpointError(
                f"{self._path}: must be of this run with {', '.join(ours)}, got one with {', '.join(theirs)}"
            )
        if state.get("make") != _MAKE:
            raise CheckpointError(
                f"{self._path}: must be written by this version, got another's; remove it to begin anew"
            )
        return state

    def restore(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Gives the model the weights of a loaded `state`.

        Raises:
            CheckpointError: they are of a model of another make, as after an update.
        """
        try:
            model.load_state_dict(state["model"])
        except RuntimeError:
            raise CheckpointError(f"{self._path}: must hold a model as this version makes it, got another") from None

    def remove(self) -> None:
        """Once the run has ended and its result is safe; with those of its other parts."""
        self._path.unlink(missing_ok=True)
        for other in self._beside:
            other.remove()
