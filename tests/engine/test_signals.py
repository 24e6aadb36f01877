from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.engines import until

# A shell may have started the tests with Ctrl-C ignored, and programs that they start inherit that.
PROGRAM = """\
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(("module", "command"), [("engine", "serve"), ("trainer", "run")])
def test_an_interrupt_while_modules_are_imported_ends_the_program_without_a_traceback(
    module: str, command: str, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUSEL_")}
    environment |= {"OUSEL_KAFKA__BOOTSTRAP": "127.0.0.1:1", "OUSEL_SNAPSHOT__ENABLED": "false"}
    environment |= {"OUSEL_SERVING__PORT": "0", "OUSEL_SERVING__METRICS_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, module, command],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        maps = Path(f"/proc/{process.pid}/maps")
        until(lambda: "numpy" in maps.read_text())  # Hundreds of modules come after it.
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in said
    assert process.returncode in (0, -signal.SIGINT)
