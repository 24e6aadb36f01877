"""The metrics that every process of Ousel has: its build, its settings, its memory and the disks it writes to."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import partial
from importlib import metadata
from pathlib import Path

from engine import metrics
from engine.config import Config
from engine.control_groups import memory_limit_bytes

# The sections by which two engines make different lists of one log; where they listen and what they keep is their own.
_SHAPING = {"events", "state", "model", "canary", "inference", "index", "ranking"}
_DIGITS = 12
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def describe_build(program: str) -> None:
    """Sets the build and the limit of memory of this process; `program` is `engine` or `trainer`."""
    version, torch_version = metadata.version("ousel-engine"), metadata.version("torch")
    metrics.BUILD_INFO.labels(program, version, platform.python_version(), torch_version).set(1)
    metrics.MEMORY_LIMIT.set_function(memory_limit_bytes)


def describe_settings(config: Config) -> None:
    """Sets the labels by which engines of one group are compared; no value of a setting can be read from the digest."""
    text = config.model_dump_json(include=_SHAPING)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    share = str(config.kafka.share).lower()
    metrics.CONFIG_INFO.labels(digest, share, config.inference.device, config.inference.precision).set(1)


def watch_reader(pid: int) -> None:
    """Shows the memory of the process that reads the log, which is a child of this one."""
    metrics.READER_MEMORY.set_function(partial(_resident_bytes, pid))


def watch_disk(folder: str, path: Path) -> None:
    """Shows how much the file system below `path` has, and has left for this user, under the name `folder`.

    It is asked at each scrape: a full disk must show before the next file is written.
    """
    metrics.DISK_FREE.labels(folder).set_function(lambda: _disk(path).f_bavail * float(_disk(path).f_frsize))
    metrics.DISK_SIZE.labels(folder).set_function(lambda: _disk(path).f_blocks * float(_disk(path).f_frsize))


def _disk(path: Path) -> os.statvfs_result:
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.statvfs(path)


def _resident_bytes(pid: int) -> float:
    """0 once the process has ended."""
    try:
        return float(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES)
    except (OSError, IndexError, ValueError):
        return 0.0
