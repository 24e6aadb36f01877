"""A process of a benchmark that says lines on its output and ends after a line on its input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Self

from deploy.local.processes import dying_with_parent

_TIMEOUT_S = 300.0


class Talker:
    """Runs a module; killed at the end of its `with` where it has not ended."""

    def __init__(self, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._process = subprocess.Popen(
            dying_with_parent([sys.executable, "-m", module, *arguments]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip

    def line(self) -> str:
        """The next one."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._module} ended with {self._process.wait()}")
        return line.strip()

    def end(self) -> str:
        """Has it end; all that it said since the last line."""
        return self._process.communicate("\n", _TIMEOUT_S)[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
