"""Programs that are no part of the project, and that some tests need: without its program a test is skipped."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def tool(name: str) -> str:
    """The path of a program: the variable of its name in capitals, beside Python, or in PATH."""
    variable = name.upper().replace("-", "_")
    path = os.environ.get(variable) or shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name}: put it into PATH, or name it by {variable}")
    return path
