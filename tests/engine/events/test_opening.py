from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from engine.config import KafkaConfig
from engine.events import opening as module
from engine.events.opening import opening
from engine.events.source import BrokerAway, SourceError

CONFIG = KafkaConfig()
DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "wait_for_broker", lambda _, stop, __: not stop.is_set())
    monkeypatch.setattr(module, "connection_problem", lambda *_, **__: None)
    monkeypatch.setattr(module, "_FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(module, "_LOOK_S", 0.001)


class Attempt:
    """Opens one thing after the other, and fails at the last of each try with the next of its errors."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = iter(errors)
        self.open = 0

    def __call__(self, opened: ExitStack) -> str:
        for _ in range(2):
            self.open += 1
            opened.callback(self.close)
        for error in self.errors:
            raise error
        return "opened"

    def close(self) -> None:
        self.open -= 1


def test_an_attempt_that_a_wait_may_mend_is_made_again_and_leaves_nothing_open() -> None:
    attempt, said = Attempt(KafkaTimeoutError("slow"), BrokerAway("gone")), []
    with opening(CONFIG, attempt, threading.Event(), said.append) as found:
        assert found == "opened"
        assert attempt.open == 2
    assert attempt.open == 0
    assert [line.rpartition(" in ")[2] for line in said] == ["0.001 s", "0.002 s"]
    assert "did not get through to its end (KafkaTimeoutError: slow)" in said[0]


@pytest.mark.parametrize("error", [SourceError("no such topic"), TopicAuthorizationFailedError("t"), ValueError("bug")])
def test_an_error_that_no_wait_mends_is_raised_at_once(error: Exception) -> None:
    attempt = Attempt(error)
    with pytest.raises(type(error)), opening(CONFIG, attempt, threading.Event(), pytest.fail):
        pytest.fail("nothing was opened")
    assert attempt.open == 0


def test_the_problem_with_the_brokers_is_said_where_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "connection_problem", lambda *_, everywhere: everywhere and "look here")
    said: list[str] = []
    with opening(CONFIG, Attempt(KafkaTimeoutError("slow")), threading.Event(), said.append):
        pass
    assert said == ["look here; next try in 0.001 s"]


class Blocked:
    """An attempt that hangs in a client of Kafka until it is let go."""

    def __init__(self) -> None:
        self.began, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, opened: ExitStack) -> str:
        opened.callback(self.closed.set)
        self.began.set()
        assert self.go.wait(DEADLINE_S)
        return "late"


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    blocked = Blocked()
    yield blocked
    blocked.go.set()


def test_a_stop_ends_the_wait_while_an_attempt_hangs_and_what_it_opens_later_is_closed(blocked: Blocked) -> None:
    stop = threading.Event()
    stopping = threading.Thread(target=lambda: blocked.began.wait(DEADLINE_S) and stop.set())
    stopping.start()
    with opening(CONFIG, blocked, stop, pytest.fail) as found:
        assert found is None
    stopping.join()
    assert not blocked.closed.is_set()
    blocked.go.set()
    assert blocked.closed.wait(DEADLINE_S)


def test_a_stop_before_the_first_attempt_opens_nothing() -> None:
    stop = threading.Event()
    stop.set()
    with opening(CONFIG, Attempt(), stop, pytest.fail) as found:
        assert found is None
