from __future__ import annotations

import tomllib

import pytest
from typer.testing import CliRunner

from engine.__main__ import app as engine_app
from trainer.__main__ import app as trainer_app


@pytest.mark.parametrize(("app", "section"), [(engine_app, "serving"), (trainer_app, "trainer")])
def test_the_settings_of_the_program_are_printed_as_toml(app, section, monkeypatch):
    monkeypatch.setenv("OUSEL_KAFKA__BOOTSTRAP", "broker:1")
    done = CliRunner().invoke(app, ["config"])
    assert done.exit_code == 0
    found = tomllib.loads(done.output)
    assert section in found and found["kafka"]["bootstrap"] == "broker:1"
    only = CliRunner().invoke(app, ["config", "--only-changed"])
    assert tomllib.loads(only.output) == {"kafka": {"bootstrap": "broker:1"}}
