from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from engine.limited_log import LimitedLog

LOG = logging.getLogger("tests.limited")


class Time:
    """A clock that stands still until it is moved; what is due then runs."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now_s

    def schedule(self, delay_s: float, run: Callable[[], None]) -> None:
        self._due.append((self.now_s + delay_s, run))

    def move(self, seconds: float) -> None:
        self.now_s += seconds
        due = [run for at_s, run in self._due if at_s <= self.now_s]
        self._due = [(at_s, run) for at_s, run in self._due if at_s > self.now_s]
        for run in due:
            run()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def limited(time: Time) -> LimitedLog:
    return LimitedLog(LOG, interval_s=10, clock=time, schedule=time.schedule)


def test_the_first_line_comes_at_once_and_a_flood_becomes_one_line_per_interval(
    limited: LimitedLog, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        limited.warning("letters", "record %d is bad", number)
    assert caplog.messages == ["record 0 is bad"]
    time.move(10)
    assert caplog.messages[1:] == ["record 999 is bad (999 of these in the last 10 s)"]
    limited.warning("letters", "record %d is bad", 1000)
    assert len(caplog.messages) == 2
    time.move(10)
    assert caplog.messages[2:] == ["record 1000 is bad"]
    time.move(10)
    limited.warning("letters", "record %d is bad", 1001)
    assert caplog.messages[3:] == ["record 1001 is bad"]


def test_kinds_do_not_hold_each_other_back_and_keep_their_level(
    limited: LimitedLog, caplog: pytest.LogCaptureFixture
) -> None:
    limited.warning("a", "first")
    limited.error("b", "second", count=3)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "first"),
        ("ERROR", "second (3 of these at once)"),
    ]


def test_endless_kinds_keep_a_bound_and_lose_no_occurrence(
    limited: LimitedLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1500):
        limited.warning(f"kind {number}", "first %d", number)
        limited.warning(f"kind {number}", "second %d", number)
    assert len(limited._kinds) == 1000
    limited.flush()
    assert sorted(caplog.messages) == sorted(f"{word} {n}" for word in ("first", "second") for n in range(1500))


def test_a_line_is_cut_where_it_is_long(limited: LimitedLog, caplog: pytest.LogCaptureFixture) -> None:
    limited.warning("long", "%s", "x" * 900_000)
    assert len(caplog.messages[0]) < 1100
    assert "899000 more characters" in caplog.messages[0]


def test_a_percent_sign_in_the_text_is_no_format(limited: LimitedLog, caplog: pytest.LogCaptureFixture) -> None:
    limited.warning("percent", "100% of them")
    limited.warning("percent too", "got %s", "%d")
    assert caplog.messages == ["100% of them", "got %d"]


def test_lines_that_are_held_back_are_written_when_the_process_ends() -> None:
    script = (
        "import logging; from engine.limited_log import LimitedLog; logging.basicConfig();"
        "limited = LimitedLog(logging.getLogger('x'), interval_s=3600);"
        "[limited.warning('kind', 'number %d', n) for n in range(3)]"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines[0].endswith("number 0")
    assert lines[1].endswith("number 2 (2 of these in the last 0 s)")
    assert len(lines) == 2


def test_a_timer_of_its_own_writes_what_is_held_back(caplog: pytest.LogCaptureFixture) -> None:
    written = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "second":
                written.set()

    heard = Heard()
    LOG.addHandler(heard)
    try:
        limited = LimitedLog(LOG, interval_s=0.01)
        limited.warning("kind", "first")
        limited.warning("kind", "second")
        assert written.wait(30)
    finally:
        LOG.removeHandler(heard)
