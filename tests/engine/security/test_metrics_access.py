"""The metrics port, where it asks for a token."""

from __future__ import annotations

import socketserver
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from pydantic import ValidationError

from engine import metrics
from engine.config import Config
from engine.metrics_server import MetricsServer
from engine.security.metrics_access import MetricsAccess
from engine.security.token_file import TokenFile
from tests.engine.security.tokens import TOKENS, line, lines_of, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return put(tmp_path / "tokens", lines_of() + line("old", "metrics", "old", "2020-01-01"))


@pytest.fixture
def tokens(path: Path) -> TokenFile:
    return TokenFile(path)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, tokens: TokenFile) -> Iterator[int]:
    monkeypatch.setattr(socketserver.BaseServer.serve_forever, "__defaults__", (0.01,))
    server = MetricsServer("127.0.0.1", 0, refusal=MetricsAccess(tokens).refusal)
    yield server.port
    server.close()


def answer(port: int, authorization: str | None) -> tuple[int, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as found:
            return found.status, found.read().decode()
    except HTTPError as error:
        assert error.code != 401 or error.headers["WWW-Authenticate"] == "Bearer"
        return error.code, error.read().decode()


def test_the_role_metrics_may_read(port: int):
    assert "ousel_ready" in answer(port, f"Bearer {TOKENS['metrics']}")[1]


@pytest.mark.parametrize(
    ("authorization", "status", "reason"),
    [
        (None, 401, "missing"),
        ("", 401, "malformed"),
        (f"Basic {TOKENS['metrics']}", 401, "malformed"),
        ("Bearer wrong", 401, "wrong"),
        ("Bearer old", 401, "expired"),
        (f"Bearer {TOKENS['admin']}", 403, "role"),
    ],
)
def test_nobody_else_may(port: int, authorization, status, reason):
    counted = metrics.CALLS_REFUSED.labels(reason, "metrics")
    before = counted._value.get()
    code, text = answer(port, authorization)
    assert code == status and text.startswith("The metrics need a token") and "ousel_ready" not in text
    assert counted._value.get() == before + 1


def test_a_revoked_token_reads_no_more(port: int, path: Path, tokens: TokenFile):
    put(path, lines_of({**TOKENS, "metrics": "another"}))
    assert [tokens.poll(), tokens.poll()] == [False, True]
    assert answer(port, f"Bearer {TOKENS['metrics']}")[0] == 401
    assert answer(port, "Bearer another")[0] == 200


def test_to_ask_for_a_token_needs_tokens():
    with pytest.raises(ValidationError, match=r"needs security\.tokens_file"):
        Config(security={"metrics_token": True})
