"""Files that are there whole or not at all, whenever the process is killed, and that nobody else may read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from engine.private_files import open_private


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Has `write` fill `path`.part, and gives that the name `path` once it is safe on the disk."""
    part = part_of(path)
    try:
        with open_private(part) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """The file that is written before it gets its name."""
    return path.with_name(f"{path.name}.part")
