from __future__ import annotations

from pathlib import Path

import pytest

from engine.checks.credentials import look_at_credentials
from engine.config import Config, SecurityConfig, ServingConfig

LINE = f"shop roles=recommend sha256={'0b' * 32}\n"


@pytest.mark.parametrize(
    ("host", "insecure", "level", "said"),
    [
        ("127.0.0.1", False, "ok", "only this machine can reach serving.host=127.0.0.1"),
        ("0.0.0.0", False, "error", "serving.host: must be on the loopback while neither"),
        ("0.0.0.0", True, "warning", "whoever reaches the port can push models"),
    ],
)
def test_an_engine_that_others_can_reach_needs_credentials(host: str, insecure: bool, level: str, said: str) -> None:
    (one,) = look_at_credentials(Config(serving=ServingConfig(host=host, insecure=insecure)))
    assert one.level == level and said in one.message


@pytest.mark.parametrize(
    ("text", "level", "said"), [(LINE, "ok", "has so many tokens: 1"), ("nonsense\n", "error", "security.tokens_file")]
)
def test_the_tokens_file_is_read(text: str, level: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(text)
    (one,) = look_at_credentials(Config(security=SecurityConfig(tokens_file=tmp_path / "tokens")))
    assert one.level == level and said in one.message
