from __future__ import annotations

import hashlib
import math
import re
from datetime import UTC, datetime

import pytest

from engine.security.roles import Role
from engine.security.tokens import MAX_TOKENS, TokenLineError, Tokens, new_token, parse_line, parse_tokens
from tests.engine.security.tokens import line

TOKEN = "ousel_0123456789012345678901234567890123456789abc"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()


def test_a_new_token_is_random_and_its_line_lets_it_in():
    token, text = new_token("shop", (Role.RECOMMEND, Role.TRACK), "2999-01-01")
    other, _ = new_token("shop", (Role.RECOMMEND,))
    assert re.fullmatch(r"ousel_[\w-]{43}", token) and token != other
    assert token not in text
    found = parse_tokens(text).of(token)
    assert found is not None and (found.name, found.roles) == ("shop", {Role.RECOMMEND, Role.TRACK})


def test_only_the_very_token_is_found():
    tokens = parse_tokens(line("shop", "track", TOKEN))
    assert tokens.of(TOKEN) is not None
    for other in ("", TOKEN[:-1], TOKEN + "a", TOKEN.upper(), DIGEST, "x" * 5000):
        assert tokens.of(other) is None


def test_a_digest_is_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: compared.append((one, other)) or False)
    assert parse_tokens(line("shop", "track", TOKEN)).of(TOKEN) is None
    assert compared == [(bytes.fromhex(DIGEST),) * 2]


def test_a_day_counts_until_its_end_and_a_moment_until_it_comes():
    noon = datetime(2027, 6, 30, 12, tzinfo=UTC).timestamp()
    assert parse_line(line("a", "track", TOKEN)).expires_s == math.inf
    assert parse_line(line("a", "track", TOKEN, "2027-06-30")).expires_s == noon + 12 * 3600
    assert parse_line(line("a", "track", TOKEN, "2027-06-30T12:00:00Z")).expires_s == noon
    assert parse_line(line("a", "track", TOKEN, "2027-06-30T14:00:00+02:00")).expires_s == noon


def test_the_next_expiry_is_of_those_that_still_count():
    tokens = Tokens(
        [parse_line(line("a", "track", f"{TOKEN}{number}", f"2027-06-{number}")) for number in (10, 11, 12)]
    )
    eleventh = datetime(2027, 6, 11, tzinfo=UTC).timestamp()
    assert tokens.next_expiry_s(eleventh) == eleventh + 86_400
    assert tokens.next_expiry_s(eleventh + 10 * 86_400) == math.inf


def test_comments_and_empty_lines_are_passed_over():
    assert len(parse_tokens(f"# The shop\n\n  {line('shop', 'track', TOKEN)}  \r\n")) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there must be at least one token"),
        ("# nobody\n", "there must be at least one token"),
        (TOKEN, "line 1: must be NAME roles="),
        (f"shop {TOKEN}", "line 1: must be NAME roles="),
        (f"shop roles=track sha256={DIGEST} sha256={DIGEST}", "line 1: must be NAME roles="),
        (f"shop roles=track sha256={DIGEST} role=push", "line 1: must be NAME roles="),
        (f"\nshop roles=track sha256={TOKEN}", "line 2: sha256 must be 64 digits of 0-9 and a-f, and is not shown"),
        (f"shop roles=trak sha256={DIGEST}", "line 1: roles must be some of recommend, track, .*, got 'trak'"),
        (f"shop roles={TOKEN} sha256={DIGEST}", "roles must be some of .*, and the value is not shown"),
        (f"{TOKEN} roles=track sha256={DIGEST}", "line 1: the name must be 1 to 64 letters"),
        (f"shop roles=track expires=tomorrow sha256={DIGEST}", "line 1: expires must be a day, YYYY-MM-DD"),
        (f"shop roles=track expires=2027-06-30T12:00 sha256={DIGEST}", "line 1: expires must be a day"),
        (f"a roles=track sha256={DIGEST}\nb roles=push sha256={DIGEST}", "line 2: the digest must stand in one line"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_that_may_be_a_token_is_shown(text, problem):
    with pytest.raises(TokenLineError, match=problem) as error:
        parse_tokens(text)
    assert TOKEN not in str(error.value) and DIGEST not in str(error.value)


def test_there_is_a_limit_to_their_number():
    text = "\n".join(line("a", "track", f"{TOKEN}{number}") for number in range(MAX_TOKENS + 1))
    with pytest.raises(TokenLineError, match="line 10001: there must be at most 10000 tokens"):
        parse_tokens(text)


@pytest.mark.parametrize(
    ("name", "expires", "problem"),
    [("sh op", None, "the name must be"), ("shop", "2020-01-01", "expires must be in the future, got 2020-01-01")],
)
def test_a_token_that_could_never_count_is_not_made(name, expires, problem):
    with pytest.raises(TokenLineError, match=problem):
        new_token(name, (Role.TRACK,), expires)
