"""The memory that this process may take: its control group's limit, or else all that the machine has."""

from __future__ import annotations

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
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # the second version, which has one tree for all
                limits += _limits_upwards(groups, path, "memory.max")
            elif "memory" in controllers.split(","):
                limits += _limits_upwards(groups / "memory", path, "memory.limit_in_bytes")
    return min(limits, default=float("nan"))


def _limits_upwards(root: Path, path: str, name: str) -> list[float]:
    """The limits of a group and of all that it lies in. In a container the path may be one of the host: root counts."""
    folder, limits = root / path.lstrip("/"), []
    for one in (folder, *folder.parents):
        if not one.is_relative_to(root):
            break
        with suppress(OSError, ValueError):  # "max" says that there is none
            limits.append(float(int((one / name).read_text())))
    return limits
