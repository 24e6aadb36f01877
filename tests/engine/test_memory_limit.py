"""The limit of memory is the least of the groups that a process is in, and else the machine's memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.memory_limit import memory_limit_bytes

GB = 2**30


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal:  {4 * GB // 1024} kB\nMemFree:  12 kB\n")
    return path


def limit(tmp_path: Path, machine: Path, own: str, **limits: str) -> float:
    (tmp_path / "own").write_text(own)
    for name, value in limits.items():
        path = tmp_path / "groups" / name.replace("__", "/").replace("_max", ".max").replace("_limit", ".limit")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    return memory_limit_bytes(tmp_path / "groups", tmp_path / "own", machine)


def test_a_group_above_this_one_may_have_the_least_limit(tmp_path, machine):
    limits = {"a__memory_max": str(GB), "a__b__memory_max": "max"}
    assert limit(tmp_path, machine, "0::/a/b\n", **limits) == GB


def test_in_a_container_the_path_is_of_the_host_and_the_root_of_the_tree_is_the_containers(tmp_path, machine):
    assert limit(tmp_path, machine, "0::/../kubepods/pod7\n", memory_max=str(2 * GB)) == 2 * GB


def test_the_first_version_of_groups_has_a_tree_for_memory(tmp_path, machine):
    own = "7:cpu:/x\n4:memory:/x/y\n"
    assert limit(tmp_path, machine, own, memory__x__memory_limit_in_bytes=str(3 * GB)) == 3 * GB


def test_a_limit_beyond_the_machine_and_none_at_all_are_the_machines_memory(tmp_path, machine):
    assert limit(tmp_path, machine, "4:memory:/x\n", memory__x__memory_limit_in_bytes=str(2**63 - 4096)) == 4 * GB
    assert limit(tmp_path, machine, "") == 4 * GB


def test_a_system_that_says_nothing_has_no_limit_that_is_known(tmp_path):
    assert math.isnan(memory_limit_bytes(tmp_path / "no", tmp_path / "no", tmp_path / "no"))
