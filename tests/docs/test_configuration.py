"""docs/configuration.md names every setting there is, with its default, and none that is gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from engine.config import Config, ConfigError, load_config
from trainer.config import TrainerConfig

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def settings() -> dict[str, object]:
    sections = {name: field.annotation for name, field in (Config.model_fields | TrainerConfig.model_fields).items()}
    return {
        f"{name}.{key}": field.get_default(call_default_factory=True)
        for name, section in sections.items()
        if hasattr(section, "model_fields")
        for key, field in section.model_fields.items()
    }


def test_every_setting_is_documented_with_its_default():
    rows = re.findall(r"^\| `(\w+\.\w+)` \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE)
    documented = {name: default.strip("` ") for name, default in rows}
    expected = settings()
    assert documented.keys() == expected.keys()
    for name, default in expected.items():
        if default is not None and not isinstance(default, dict):
            assert documented[name] == str(default), name


def bounds(field: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [(sign, getattr(one, name)) for one in field.metadata for name, sign in signs.items() if hasattr(one, name)]
    return ", ".join(f"{sign} {value:.15g}" for sign, value in found)


def test_the_bounds_of_every_number_are_documented():
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| [^|]* \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE)
    sections = {name: field.annotation for name, field in (Config.model_fields | TrainerConfig.model_fields).items()}
    for section, name, allowed in rows:
        expected = bounds(sections[section].model_fields[name])
        assert not expected or allowed.strip() == expected, f"{section}.{name}"


def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(monkeypatch):
    monkeypatch.setenv("OUSEL_STATE__HISTORY", "0")
    monkeypatch.setenv("OUSEL_SERVING__PROT", "1")
    with pytest.raises(ConfigError) as error:
        load_config()
    assert "OUSEL_STATE__HISTORY: state.history: must be a whole number >= 2 and <= 4096, got '0'" in str(error.value)
    assert "OUSEL_SERVING__PROT: serving.prot: there is no such setting, did you mean serving.port?" in str(error.value)


def test_a_goal_must_be_a_kind_and_the_message_shows_no_other_section(monkeypatch):
    monkeypatch.setenv("OUSEL_KAFKA__SASL_PASSWORD", "hush")
    monkeypatch.setenv("OUSEL_KAFKA__SASL_USERNAME", "me")
    monkeypatch.setenv("OUSEL_KAFKA__SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("OUSEL_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("OUSEL_RANKING__GOAL", "buy")
    with pytest.raises(
        ConfigError, match=r"ranking: .*goal must be one of \['cart', .*\(events.kinds\), got 'buy'"
    ) as error:
        load_config()
    assert "hush" not in str(error.value)
    monkeypatch.setenv("OUSEL_EVENTS__KINDS", '{"view": 1, "buy": 3}')
    assert load_config().ranking.goal == "buy"


def test_variables_win_over_the_file_and_the_file_over_defaults(tmp_path, monkeypatch):
    path = tmp_path / "ousel.toml"
    path.write_text("[serving]\nport = 1234\nmax_batch = 7\n")
    monkeypatch.setenv("OUSEL_SERVING__PORT", "4321")
    config = load_config(path)
    assert (config.serving.port, config.serving.max_batch, config.serving.max_streams) == (4321, 7, 10_000)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--config must name a file, got '.*nowhere.toml'"):
        load_config(tmp_path / "nowhere.toml")
