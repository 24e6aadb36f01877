"""Builds `caller.cc`, where a C++ compiler and the headers of gRPC are (Debian: g++, pkg-config and libgrpc++-dev)."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from benchmarks.report import FOLDER

_SOURCE = Path(__file__).with_name("caller.cc")
_LIBRARY = "grpc++"


def compiled_caller() -> Path | None:
    """The program, built if it is older than its source; None where it can't be built."""
    program = FOLDER / "caller"
    compiler, finder = shutil.which("c++"), shutil.which("pkg-config")
    if compiler is None or finder is None:
        return None
    flags = subprocess.run([finder, "--cflags", "--libs", _LIBRARY], capture_output=True, text=True, check=False)
    if flags.returncode:
        return None
    if not program.exists() or program.stat().st_mtime < _SOURCE.stat().st_mtime:
        FOLDER.mkdir(parents=True, exist_ok=True)
        print("compiling the caller", flush=True)
        subprocess.run([compiler, "-std=c++17", "-O2", _SOURCE, "-o", program, *shlex.split(flags.stdout)], check=True)
    return program.resolve()
