"""`ousel-engine compile`: compiles the engine's functions beforehand, so that no start has to.

They are compiled as their modules are imported.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from engine.kernel_cache import report

_PACKAGE = Path(__file__).parents[1]
_KERNEL = re.compile(r"^@compiled\(", re.MULTILINE)


def announce() -> None:
    """Says on the terminal what is compiled: each function for this command, and once that there is one for others."""
    modules = kernel_modules()
    every = sys.argv[1:2] == ["compile"]

    def say(name: str) -> None:
        if every:
            print(
                f"[{report.loaded + report.compiled + 1}/{sum(modules.values())}] {name}", file=sys.stderr, flush=True
            )
        elif report.compiled == 0:
            print(
                "ousel-engine: functions are compiled for this machine, which takes up to a minute, once;"
                " `ousel-engine compile` does it beforehand",
                file=sys.stderr,
                flush=True,
            )

    report.compiling = say


def compile_functions() -> None:
    """Compiles what is not there yet, and keeps it beside the sources, or in the folder that NUMBA_CACHE_DIR names.

    Raises:
        SystemExit: it can't be kept.
    """
    announce()
    for module in kernel_modules():
        importlib.import_module(module)
    if report.problem is not None:
        raise SystemExit(f"ousel-engine: the compiled functions can't be kept: {report.problem}")
    if report.damage is not None:
        print(f"ousel-engine: compiled again: {report.damage}", file=sys.stderr)
    print(f"{report.compiled} functions were compiled for this machine, {report.loaded} were there: {report.folder}")


def kernel_modules() -> dict[str, int]:
    """How many compiled functions each module has that has any."""
    found = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        count = len(_KERNEL.findall(path.read_text(encoding="utf-8")))
        if count:
            found[".".join(path.relative_to(_PACKAGE.parent).with_suffix("").parts)] = count
    return found
