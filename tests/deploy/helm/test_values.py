"""What the chart is given by default, and in its examples, holds for its schema and for the programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config import load_config, load_settings
from tests.deploy.helm.charts import CHART, VALUES, on_this_machine, toml
from trainer.config import TrainerConfig

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULT = CHART / "values.yaml"
FILES = {"default": DEFAULT, **VALUES}


def problems(values: dict[str, Any]) -> list[str]:
    validator = pytest.importorskip("jsonschema", reason="there is no jsonschema").Draft202012Validator
    return [f"{error.json_path}: {error.message}" for error in validator(SCHEMA).iter_errors(values)]


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm joins them."""
    both = {key: merged(values[key], over[key]) for key in values.keys() & over.keys() if isinstance(over[key], dict)}
    return values | over | both


@pytest.mark.parametrize("name", FILES)
def test_values_are_what_the_schema_allows(name: str) -> None:
    values = merged(yaml.safe_load(DEFAULT.read_text()), yaml.safe_load(FILES[name].read_text()))
    assert problems(values) == []


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"engine": {"replicas": 0}}, "$.engine.replicas"),
        ({"engine": {"replica": 2}}, "$.engine"),
        ({"config": {"kafka": {"sasl_password": "hush"}}}, "$.config.kafka"),
        ({"config": {"events": {"kinds": {"view": 1}}}}, "$.config.events"),
        ({"files": [{"name": "a", "mountPath": "/a"}]}, "$.files[0]"),
        ({"files": [{"name": "ousel-tls", "secret": "a", "mountPath": "/a"}]}, "$.files[0].name"),
        ({"files": [{"name": "state", "secret": "a", "mountPath": "/a"}]}, "$.files[0].name"),
        ({"security": {"token": "hush"}}, "$.security"),
        ({"trainer": {"storage": {"size": "much"}}}, "$.trainer.storage.size"),
    ],
)
def test_values_that_can_not_be_meant_are_refused(wrong: dict[str, Any], place: str) -> None:
    found = problems(merged(yaml.safe_load(DEFAULT.read_text()), wrong))
    assert len(found) == 1 and found[0].startswith(f"{place}: ")


@pytest.mark.parametrize("name", FILES)
def test_the_settings_in_the_values_are_ones_that_both_programs_take(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUSEL_KAFKA__SASL_PASSWORD", "from the secret")
    values = yaml.safe_load(FILES[name].read_text())
    path = tmp_path / "ousel.toml"
    path.write_text(on_this_machine(toml(values["config"]) + "\n" + values.get("configText", ""), tmp_path))
    if "sasl_mechanism" not in values["config"]["kafka"]:
        monkeypatch.delenv("OUSEL_KAFKA__SASL_PASSWORD")
    assert load_config(path).kafka == load_settings(TrainerConfig, path).kafka
