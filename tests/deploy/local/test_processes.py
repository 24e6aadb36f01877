"""A child ends when told to, when its parent dies, and with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from deploy.local.processes import Child, tail

_DEADLINE_S = 20.0

# Says that it is there by writing its pid, then waits for ever.
_WAIT = "import os, pathlib, signal; pathlib.Path({path!r}).write_text(str(os.getpid())); signal.pause()"
_IGNORE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


def _command(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline, tick = time.monotonic() + _DEADLINE_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        tick.wait(0.01)


def _written(path: Path) -> int:
    _wait_for(lambda: path.exists() and path.read_text() != "", f"{path.name} was never written")
    return int(path.read_text())


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # dead, whoever has to notice
    except psutil.NoSuchProcess:
        return True


def test_stop_ends_the_child_and_what_it_started(tmp_path: Path) -> None:
    grandchild = _WAIT.format(path=str(tmp_path / "grandchild"))
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {grandchild!r}]); " + _WAIT.format(
        path=str(tmp_path / "child")
    )
    child = Child("child", _command(code), tmp_path / "child.log")
    pids = [_written(tmp_path / "child"), _written(tmp_path / "grandchild")]
    assert pids[0] == child.pid
    child.stop()
    _wait_for(lambda: all(map(_gone, pids)), "something outlived stop")
    assert child.wait(0) == -signal.SIGTERM
    child.stop()  # twice is fine


def test_what_ignores_sigterm_is_killed_after_the_deadline(tmp_path: Path) -> None:
    child = Child("deaf", _command(_IGNORE + _WAIT.format(path=str(tmp_path / "child"))), tmp_path / "child.log")
    pid = _written(tmp_path / "child")
    child.stop(timeout_s=0.2)
    assert _gone(pid)
    assert child.wait(0) == -signal.SIGKILL


def test_what_a_child_left_behind_ends_with_stop(tmp_path: Path) -> None:
    orphan = _WAIT.format(path=str(tmp_path / "orphan"))
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    child = Child("careless", _command(code), tmp_path / "child.log")
    pid = _written(tmp_path / "orphan")
    assert child.wait(_DEADLINE_S) == 0
    assert not _gone(pid)
    child.stop()
    _wait_for(lambda: _gone(pid), "the orphan outlived stop")


def test_a_killed_launcher_takes_its_child_along(tmp_path: Path) -> None:
    # The child ignores every polite signal: only the kernel's can end it.
    code = _IGNORE + _WAIT.format(path=str(tmp_path / "child"))
    launcher = (
        "import pathlib, signal, sys\n"
        "from deploy.local.processes import Child\n"
        f"child = Child('child', [sys.executable, '-c', {code!r}], pathlib.Path({str(tmp_path / 'child.log')!r}))\n"
        "signal.pause()\n"
    )
    process = subprocess.Popen(_command(launcher), cwd=Path(__file__).parents[3])
    try:
        pid = _written(tmp_path / "child")
        assert not _gone(pid)
    finally:
        process.kill()
        process.wait()
    _wait_for(lambda: _gone(pid), "the child outlived its launcher")


def test_the_child_is_out_of_reach_of_the_terminals_ctrl_c(tmp_path: Path) -> None:
    child = Child("child", _command(_WAIT.format(path=str(tmp_path / "child"))), tmp_path / "child.log")
    try:
        pid = _written(tmp_path / "child")
        assert os.getpgid(pid) == pid != os.getpgid(0)
    finally:
        child.stop()


def test_output_goes_to_the_log_and_environment_to_the_child(tmp_path: Path) -> None:
    log = tmp_path / "new" / "child.log"
    code = "import os, sys; print(os.environ['WORD'], flush=True); print('oops', file=sys.stderr); sys.exit(3)"
    child = Child("child", _command(code), log, env=os.environ | {"WORD": "hello"})
    assert child.wait(_DEADLINE_S) == 3
    assert child.log_tail() == "hello\noops"


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path, 2) == ""
    path.write_bytes(b"first \xff\n" + b"x" * 200_000 + b"\nsecond\nthird\n")
    assert tail(path, 2) == "second\nthird"
    assert len(tail(path, 100)) < 100_000
