"""The limit of file descriptors, in a process of its own that begins with another one."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys

import pytest

from engine.descriptors import RESERVED, connections, raise_limit

PROGRAM = """
import logging, resource, sys
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from engine.descriptors import raise_limit
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
now = raise_limit(wanted)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (now, hard), resource.getrlimit(resource.RLIMIT_NOFILE)
"""


def lines(soft: int, hard: int, wanted: int) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(wanted)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


def test_the_soft_limit_becomes_the_hard_one_and_a_line_says_so():
    assert lines(256, 1024, 1024) == ["the limit of file descriptors was 256 and is now 1024, the hard limit"]
    assert lines(1024, 1024, 1024) == ["the limit of file descriptors is 1024, as it was"]


def test_a_limit_that_is_too_low_for_the_settings_says_what_to_do():
    _, line = lines(256, 1024, 10_256)
    assert line.startswith("1024 file descriptors are too few for the connections that serving.max_streams")
    assert "raise the hard limit to 10256 (LimitNOFILE of systemd, --ulimit nofile of a container)" in line
    assert line.endswith("at most 768 connections are taken")


def test_a_soft_limit_that_is_none_stays_none(monkeypatch, caplog):
    none = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (none, none))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("it was lowered"))
    with caplog.at_level(logging.INFO):
        assert raise_limit(10_256) == 2**20
    assert [record.getMessage() for record in caplog.records] == ["the limit of file descriptors is none, as it was"]


@pytest.mark.parametrize(("descriptors", "expected"), [(1024, 1024 - RESERVED), (2**20, 2**20 - RESERVED), (100, 16)])
def test_connections_leave_descriptors_for_everything_else(descriptors, expected):
    assert connections(descriptors) == expected
