"""Child processes that never outlive the one that started them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# 1 is PR_SET_PDEATHSIG, which outlasts exec. A parent that died before sends nothing any more.
_BECOME = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
_STOP_S = 8.0
_TAIL_BYTES = 64 * 1024


class Child:
    """One running process in a process group of its own, its output in a log file. Construction starts it.

    Args:
        name: for messages.
        command: program and arguments.
        log_path: gets stdout and stderr; created with its folder, emptied where it exists.
        env: the whole environment; that of this process where None.

    Raises:
        OSError: the program can't be started.
    """

    def __init__(self, name: str, command: Sequence[str], log_path: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches the parent alone, and it stops its parts in order.
            self._process = subprocess.Popen(
                dying_with_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the process to end by itself. Returns its exit code, or None after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Asks the process and all that it started to end, and does not wait for it."""
        self._signal(signal.SIGTERM)

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """Ends the process and its group; kills what has not ended after `timeout_s`. Safe to call twice."""
        if self.wait(0) is None:
            self.terminate()
            if self.wait(timeout_s) is None:
                self._signal(signal.SIGKILL)
                self.wait()
        # Also what it started and left behind.
        self._signal(signal.SIGKILL)

    def log_tail(self, lines: int = 10) -> str:
        """The last lines of its log."""
        return tail(self.log_path, lines)

    def _signal(self, signum: signal.Signals) -> None:
        # No such group: all have ended. Not permitted: on some systems the same, of a group of zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signum)


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file, which may still grow; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """Wraps a command so that Linux kills its process when the one that started it dies; elsewhere nothing is wrapped.

    An interpreter asks the kernel for that and becomes the command. A `preexec_fn` could ask without it, but would run
    Python in the copy of a process whose threads are gone, and has ended in a segmentation fault there.

    The kernel watches the thread that started the child, not the process: start children from a thread that lives as
    long as the process, such as the main one.

    Raises:
        FileNotFoundError: there is no such program.
    """
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    if sys.platform != "linux":
        return [*command]
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command]
