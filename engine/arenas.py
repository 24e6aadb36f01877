"""Keeps the C library from holding free memory in an arena for each thread.

glibc gives every thread that allocates an arena of its own, up to eight for each core, and hands little of it back:
what a snapshot or a build of the index took once stays with its arena, out of reach of the other threads. Under load
nearly half of what the engine had from malloc was free memory of this kind, and more every minute. Threads that hold
Python's lock while they allocate don't wait for each other's arena anyway.
"""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2
_SETTING = "MALLOC_ARENA_MAX"


def limit_arenas() -> None:
    """Lets all threads that start from now on share two arenas.

    Nothing changes where the environment has `MALLOC_ARENA_MAX`, or the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and _SETTING not in os.environ:
        mallopt(_M_ARENA_MAX, _ARENAS)
