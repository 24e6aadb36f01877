from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import ConfigError, load_settings
from trainer.config import TrainerConfig


def test_variables_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ousel.toml"
    file.write_text('[trainer]\nseed = 7\nbatch = 9\n[kafka]\nbootstrap = "a:1"\n')
    monkeypatch.setenv("OUSEL_TRAINER__BATCH", "11")
    config = load_settings(TrainerConfig, file)
    assert (config.trainer.seed, config.trainer.batch, config.kafka.bootstrap) == (7, 11, "a:1")


def test_one_file_serves_the_engine_too(tmp_path: Path) -> None:
    file = tmp_path / "ousel.toml"
    file.write_text("[serving]\nport = 1\n[trainer]\nseed = 7\n")
    assert load_settings(TrainerConfig, file).trainer.seed == 7


@pytest.mark.parametrize(
    "name, value", [("BATCH", "0"), ("HEADS", "65"), ("LOCAL_HEADS", "3"), ("UNKNOWN", "1"), ("HOLDOUT_SHARE", "0.9")]
)
def test_a_wrong_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"OUSEL_TRAINER__{name}", value)
    with pytest.raises(ConfigError, match=r"trainer"):
        load_settings(TrainerConfig, None)
