"""Runs checks one after the other, each for a bounded time, and says what each has found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from kafka.errors import KafkaError

from engine.checks.finding import Finding, Level, error
from engine.failures import is_of_the_machine, told
from engine.log_output import one_line

C = TypeVar("C")

DEADLINE_S = 20.0  # A frozen broker costs each question the time that it may take, and a check asks a few.


@dataclass(frozen=True)
class Check(Generic[C]):
    """A subject that can be looked at.

    Attributes:
        name: of the subject, for people and scripts.
        look: yields what it finds under a configuration, or raises; it changes nothing anywhere.
        after: the name of a check whose error makes this one pointless.
    """

    name: str
    look: Callable[[C], Iterable[Finding]]
    after: str | None = None


class Line(NamedTuple):
    """A finding and the check that made it."""

    check: str
    level: Level
    message: str


def run_checks(checks: Sequence[Check[C]], config: C, deadline_s: float = DEADLINE_S) -> Iterator[Line]:
    """The findings of each check, in order. A check that takes longer than `deadline_s` is left to itself."""
    failed: set[str] = set()
    for check in checks:
        if check.after in failed:
            yield Line(
                check.name, Level.SKIPPED, f"nothing was looked at, because the check of {check.after} has an error"
            )
            continue
        for finding in _found(check, config, deadline_s):
            if finding.level is Level.ERROR:
                failed.add(check.name)
            yield Line(check.name, finding.level, one_line(finding.message))


def _found(check: Check[C], config: C, deadline_s: float) -> Sequence[Finding]:
    """What a check finds in time; in a thread, because kafka-python and the disk can't be interrupted."""
    found: list[Finding] = []
    ended = threading.Event()

    def run() -> None:
        try:
            found.extend(check.look(config))
        except Exception as problem:  # of any kind: the other checks must have their turn
            found.append(error(_explained(problem)))
        ended.set()

    threading.Thread(target=run, name=f"check-{check.name}", daemon=True).start()
    if not ended.wait(deadline_s):
        return [*found, error(f"there is no answer within {deadline_s:g} s: look for a broker or a disk that hangs")]
    return found


def _explained(problem: Exception) -> str:
    if isinstance(problem, KafkaError):
        return f"the broker did not answer the question, or refused it: {told(problem)}"
    if is_of_the_machine(problem):
        return told(problem)
    return f"the check itself failed, which is a bug: {problem!r}"
