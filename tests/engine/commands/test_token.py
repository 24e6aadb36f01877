"""What `ousel-engine token` prints, and that its line lets its token in."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from engine.__main__ import app
from engine.security.roles import Role
from engine.security.tokens import parse_tokens


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["token", *arguments])
    problem = str(result.exception) if isinstance(result.exception, SystemExit) and result.exit_code else ""
    return result.exit_code, result.stdout, result.stderr + problem


def test_the_output_is_a_token_and_its_line_for_the_file():
    code, output, said = run("shop", "--role", "recommend", "--role", "track", "--expires", "2999-12-31")
    token, line = output.splitlines()
    found = parse_tokens(line).of(token)
    assert code == 0 and found is not None
    assert (found.name, found.roles) == ("shop", {Role.RECOMMEND, Role.TRACK})
    assert "expires=2999-12-31" in line and token not in line and token not in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["sh op", "--role", "push"], "ousel-engine token: the name must be 1 to 64 letters"),
        (["shop", "--role", "push", "--expires", "2020-01-01"], "expires must be in the future, got 2020-01-01"),
        (["shop", "--role", "push", "--expires", "soon"], "expires must be a day, YYYY-MM-DD"),
        (["shop", "--role", "pusher"], "'pusher' is not one of"),
        (["shop"], "--role"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_what_must_be_so(arguments, problem):
    code, output, said = run(*arguments)
    assert code == 2 and output == "" and problem in said
