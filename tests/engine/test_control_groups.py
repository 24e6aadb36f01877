"""What a process may take is the least of what its groups may, and else all that the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from engine.control_groups import cores, memory_limit_bytes, threads_beside_one

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


@pytest.fixture
def of_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {}, 16),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 2),
        ("0::/a\n", {"a/cpu.max": "50000 100000"}, 1),
        ("0::/a\n", {"a/cpu.max": "6400000 100000"}, 16),
        ("7:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "300000", "cpu/x/cpu.cfs_period_us": "100000"}, 3),
        ("7:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 16),
        ("4:memory:/x\n", {"memory/x/cpu.max": "100000 100000"}, 16),
    ],
)
def test_cores_are_those_of_the_machine_or_the_groups_share_of_time(tmp_path, of_sixteen, own, files, expected):
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    assert cores(tmp_path / "groups", tmp_path / "own") == expected


def test_one_core_is_left_to_others_unless_a_number_of_threads_is_given(of_sixteen, monkeypatch):
    monkeypatch.setattr("engine.control_groups.cores", lambda: 16)
    assert (threads_beside_one(None), threads_beside_one(3)) == (15, 3)
    monkeypatch.setattr("engine.control_groups.cores", lambda: 1)
    assert threads_beside_one(None) == 1
