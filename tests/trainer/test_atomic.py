from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from trainer.atomic import write_atomically


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"before")

    def fails(file: BinaryIO) -> None:
        file.write(b"half of it")
        assert path.read_bytes() == b"before"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fails)
    assert [one.name for one in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == b"before"


def test_what_was_there_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"something longer")
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
