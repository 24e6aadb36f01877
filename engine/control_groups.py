"""The memory and the cores that this process may take: its control groups' limits, or else all of the machine's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS, _OWN, _MACHINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")


def memory_limit_bytes(groups: Path = _CGROUPS, own: Path = _OWN, machine: Path = _MACHINE) -> float:
    """The least limit of the control groups that this process is in, in bytes; the machine's memory where none is less.

    NaN where the system says neither.
    """
    limits = []
    with suppress(OSError):
        limits += [1024.0 * int(line.split()[1]) for line in machine.read_text().splitlines() if "MemTotal:" in line]
    for folder, second in _groups(groups, own, "memory"):
        with suppress(OSError, ValueError):  # "max" says that there is none
            limits.append(float(int((folder / ("memory.max" if second else "memory.limit_in_bytes")).read_text())))
    return min(limits, default=float("nan"))


def cores(groups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """The whole cores that this process may keep busy, at least one: where it may run, or its groups' share of time."""
    may_run = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )  # not all systems say
    limits = [float(may_run or 1)]
    for folder, second in _groups(groups, own, "cpu"):
        with suppress(OSError, ValueError):  # "max" or -1 says that there is none
            if second:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:
                limits.append(int(quota) / int(period))
    return max(1, int(min(limits)))


def threads_beside_one(wanted: int | None) -> int:
    """`wanted` threads or, where that is None, one for each core but one, and at least one."""
    return max(1, cores() - 1) if wanted is None else wanted


def _groups(groups: Path, own: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of this process's group and of all that it lies in, and whether each is of the second version.

    In a container the path may be one of the host: the root of the tree counts.
    """
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            second = not controllers  # the second version has one tree for all
            if not second and controller not in controllers.split(","):
                continue
            root = groups if second else groups / controller
            folder = root / path.lstrip("/")
            yield from ((one, second) for one in (folder, *folder.parents) if one.is_relative_to(root))
