from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from trainer.checkpoint import Checkpoint, CheckpointError


def test_what_was_saved_last_comes_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "new" / "run.pt", "data=1, dim=8")
    assert checkpoint.load() is None
    for step in (1, 2):
        checkpoint.save({"step": step, "model": torch.full((2,), step)})
    state = Checkpoint(tmp_path / "new" / "run.pt", "data=1, dim=8").load()
    assert state is not None and state["step"] == 2 and state["model"].tolist() == [2, 2]
    checkpoint.remove()
    assert checkpoint.load() is None


def test_another_run_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    Checkpoint(path, "data=1, dim=8, seed=1").save({})
    with pytest.raises(CheckpointError, match=r"run.pt: must be of this run with dim=16, got one with dim=8$"):
        Checkpoint(path, "data=1, dim=16, seed=1").load()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"run.pt: must be a checkpoint, got"):
        Checkpoint(path, "data=1").load()


def test_a_file_without_a_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    torch.save({"step": 1}, path)
    with pytest.raises(CheckpointError, match=r"run.pt: must be a checkpoint, got KeyError"):
        Checkpoint(path, "data=1").load()


def test_the_next_save_is_due_after_its_time(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "run.pt", "", every_s=0).due()
    assert not Checkpoint(tmp_path / "run.pt", "", every_s=3600).due()


def test_a_model_of_another_make_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt", "run")
    checkpoint.save({"model": nn.Linear(2, 3).state_dict()})
    state = checkpoint.load()
    assert state is not None
    checkpoint.restore(nn.Linear(2, 3), state)
    with pytest.raises(CheckpointError, match="a model as this version makes it"):
        checkpoint.restore(nn.Linear(2, 4), state)
