"""The files and folders that a command writes in the end, tried before its work begins."""

from __future__ import annotations

import os
from pathlib import Path

from engine.private_files import make_private_file, make_private_folder
from trainer.atomic import part_of


def check_output(option: str, path: Path) -> None:
    """Makes the folder of a file, and writes and removes a file there.

    Raises:
        ValueError: no file of this name can be written; names the option and the reason.
    """
    try:
        problem = _written_where(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{option} must name a file that can be written, got {str(path)!r}: {_reason(error)}"
        ) from None
    if problem:
        raise ValueError(f"{option} must name a file, got {str(path)!r}, which is {problem}")


def check_output_folder(option: str, path: Path) -> None:
    """`check_output` for a folder that files are written to."""
    try:
        make_private_folder(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{option} must name a folder, got {str(path)!r}: {_reason(error)}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"{option} must name a folder that can be written to, got {str(path)!r}")


def _written_where(path: Path) -> str:
    """Tries to write beside a path; what it is where it is no file, and else nothing."""
    if path.exists() and not path.is_file():
        return "a folder" if path.is_dir() else "no plain file"
    make_private_folder(path.parent)
    part = part_of(path)
    make_private_file(part)
    part.unlink(missing_ok=True)
    return ""


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
