"""`ousel-engine serve` as a process that begins where the engine's modules are imported.

Importing them takes seconds of a core, and the tests start many engines. So one process of each worker imports them
once, and each engine is a fork of it: it has a memory, signals, files and variables of its own, and runs the program's
own `main`. The program as users start it is what the tests of signals and of recovery run, and the demo.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["engine.__main__", "engine.commands.serve"])


class ForkedEngine:
    """An engine, with the methods of `subprocess.Popen` that the tests use.

    Args:
        log_path: gets stdout and stderr.
        variables: the whole environment.
    """

    def __init__(self, log_path: Path, variables: Mapping[str, str]) -> None:
        # Marked as a daemon, so that none outlives the tests.
        self._process = _forks.Process(target=_serve, args=(str(log_path), dict(variables)), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("ousel-engine serve", timeout_s or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve(log_path: str, variables: dict[str, str]) -> None:
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for output in (1, 2):
        os.dup2(log, output)
    os.close(log)
    os.environ.clear()
    os.environ.update(variables)
    # The interpreter reads it as it begins, and the engine hands its path on to the process that reads the log.
    sys.path[:0] = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["ousel-engine", "serve"]
    from engine.__main__ import main

    main()
