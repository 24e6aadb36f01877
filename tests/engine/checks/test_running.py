from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
import typer
from kafka.errors import TopicAuthorizationFailedError

from engine.checks.finding import Finding, Level, error, ok, warning
from engine.checks.report import report
from engine.checks.running import Check, run_checks


def finds(*findings: Finding):
    return lambda config: iter(findings)


def raises(problem: Exception):
    def look(config: object) -> Iterator[Finding]:
        yield ok("so far")
        raise problem

    return look


def test_checks_run_in_order_and_the_ones_that_need_a_failed_one_are_skipped() -> None:
    checks = [
        Check("a", finds(ok("fine"), warning("hm"))),
        Check("b", finds(error("broken")), after="a"),
        Check("c", finds(ok("never")), after="b"),
        Check("d", finds(ok("fine"))),
    ]
    assert [(line.check, line.level.value) for line in run_checks(checks, None)] == [
        ("a", "ok"), ("a", "warning"), ("b", "error"), ("c", "skipped"), ("d", "ok"),
    ]  # fmt: skip


def test_a_check_that_hangs_ends_in_its_time_and_the_others_have_their_turn() -> None:
    for_ever = threading.Event()

    def hangs(config: object) -> Iterator[Finding]:
        yield ok("so far")
        for_ever.wait(60)

    lines = list(run_checks([Check("a", hangs), Check("b", finds(ok("fine")))], None, deadline_s=0.05))
    for_ever.set()
    assert [(line.check, line.level) for line in lines] == [("a", Level.OK), ("a", Level.ERROR), ("b", Level.OK)]
    assert "no answer within 0.05 s" in lines[1].message


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (TopicAuthorizationFailedError(), "the broker did not answer the question, or refused it: TopicAuthorization"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied: /x"),
        (KeyError("x"), "the check itself failed, which is a bug: KeyError('x')"),
    ],
)
def test_a_check_that_fails_is_an_error_that_says_why(problem: Exception, said: str) -> None:
    first, second = run_checks([Check("a", raises(problem))], None)
    assert (first.level, second.level) == (Level.OK, Level.ERROR)
    assert second.message.startswith(said)


@pytest.mark.parametrize(
    ("finding", "strict", "code"),
    [(ok("x"), True, 0), (warning("x"), False, 0), (warning("x"), True, 1), (error("x"), False, 1)],
)
def test_the_exit_code_tells_scripts_how_it_ended(
    finding: Finding, strict: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = 0
    try:
        report([Check("a", finds(finding))], None, as_json=True, strict=strict)
    except typer.Exit as end:
        ended = end.exit_code
    assert ended == code
    assert json.loads(capsys.readouterr().out) == {"check": "a", "level": finding.level.value, "message": "x"}


def test_each_finding_is_one_line_whatever_stands_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    report([Check("a", finds(ok("x\n\x1b[31my")))], None, as_json=False, strict=True)
    assert capsys.readouterr().out == "ok       a: x\\n\\x1b[31my\nok: 1, skipped: 0, warning: 0, error: 0\n"
