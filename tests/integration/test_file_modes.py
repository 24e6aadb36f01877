"""Everything that an engine and a trainer write in a life from the first event to a served model is private."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ousel
import pytest
from ousel.v1 import catalog_pb2, event_pb2
from typer.testing import CliRunner

from engine.config import KafkaConfig
from tests.integration.engines import DEADLINE_S, running, until, write
from tests.trainer.planted import planted_log, small_config
from trainer.__main__ import app

pytestmark = pytest.mark.integration


@pytest.fixture
def open_umask() -> Iterator[None]:
    """By which every file would be for everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_snapshots_archive_and_models_are_for_their_user_alone(
    kafka_config: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = planted_log(600).events
    events = [
        event_pb2.Event(user_id=user, session_id=session, item_id=item_id)
        for user, session, item_id in zip(columns.user_id, columns.session_id, columns.item_id, strict=True)
    ]
    write(kafka_config, events, [catalog_pb2.Item(item_id=item_id) for item_id in sorted(set(columns.item_id))])
    state = tmp_path / "state"
    for name, value in _given(kafka_config, state).items():
        monkeypatch.setenv(name, value)
    with (
        running(kafka_config, tmp_path / "engine.log", OUSEL_SNAPSHOT__DIR=str(state / "snapshots")) as engine,
        ousel.Client(engine.address, DEADLINE_S) as client,
    ):
        client.take_snapshot()
    done = CliRunner().invoke(app, ["train", "--out", str(state / "models" / "m.safetensors")])
    assert done.exit_code == 0, done.output
    _archive(state / "archive", tmp_path / "trainer.log")
    written = [state, *state.rglob("*")]
    kinds = {path.relative_to(state).parts[0] for path in written if path != state}
    assert {"snapshots", "archive", "models"} <= kinds
    wide = {path: oct(path.stat().st_mode) for path in written if path.stat().st_mode & 0o077}
    assert not wide
    assert {path.stat().st_mode & 0o777 for path in written if path.is_file()} == {0o600}


def _archive(folder: Path, log_path: Path) -> None:
    """Has a trainer read the log, and write its archive at its end."""
    with log_path.open("wb") as log:
        trainer = subprocess.Popen([sys.executable, "-m", "trainer", "run"], stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: "the log is read" in log_path.read_text() or trainer.poll() is not None, log_path.read_text)
        trainer.terminate()
        until(lambda: trainer.poll() is not None, log_path.read_text)
        assert list(folder.rglob("*.parquet")), log_path.read_text()
    finally:
        trainer.kill()
        trainer.wait()


def _given(kafka: KafkaConfig, state: Path) -> dict[str, str]:
    """The variables of a trainer that trains for a moment, and pushes nowhere."""
    small = small_config(
        nice=0, max_steps=10, ranker_epochs=1, engine="127.0.0.1:1", archive_dir=state / "archive", metrics_port=0
    )
    given = kafka.model_dump(exclude_unset=True, exclude_none=True)
    if kafka.sasl_password is not None:
        given["sasl_password"] = kafka.sasl_password.get_secret_value()
    sections = {"KAFKA": given, "TRAINER": small.model_dump(exclude_unset=True)}
    return {
        f"OUSEL_{section}__{name.upper()}": str(value)
        for section, settings in sections.items()
        for name, value in settings.items()
    }
