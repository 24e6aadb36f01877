from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

_THREADS = 6
# Each thread holds a block that no other has freed before it ends, so none can borrow another's arena unless it must.
_ALLOCATE = f"""
import ctypes, sys, threading

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
if sys.argv[2] == "limited":
    from engine.arenas import limit_arenas

    limit_arenas()
together = threading.Barrier({_THREADS})

def allocate():
    assert libc.malloc(ctypes.c_size_t(4096))
    together.wait(60)

threads = [threading.Thread(target=allocate) for _ in range({_THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
"""


def arenas(tmp_path: Path, how: str, **environment: str) -> int:
    """How many the C library has in a process of its own, after threads have allocated at once."""
    report = tmp_path / "malloc.xml"
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    subprocess.run([sys.executable, "-c", _ALLOCATE, str(report), how], check=True, env=others | environment)
    return len(re.findall("<heap nr=", report.read_text()))


@pytest.fixture(autouse=True)
def glibc() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is not glibc")


def test_threads_share_two_arenas_once_limited(tmp_path: Path) -> None:
    assert arenas(tmp_path, "as it comes") > 2
    assert arenas(tmp_path, "limited") == 2


def test_what_the_environment_says_wins(tmp_path: Path) -> None:
    assert arenas(tmp_path, "limited", MALLOC_ARENA_MAX="4") == 4
