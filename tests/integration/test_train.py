"""`ousel-trainer train` from the log, and `ousel-trainer push` into an engine that reads the same log."""

from __future__ import annotations

from pathlib import Path

import ousel
import pytest
from ousel.v1 import catalog_pb2, event_pb2
from typer.testing import CliRunner

from engine.config import KafkaConfig
from tests.integration.engines import DEADLINE_S, running, write
from tests.trainer.planted import planted_log, small_config
from trainer.__main__ import app
from trainer.model_file import load_model

pytestmark = pytest.mark.integration


def test_a_model_trained_from_the_log_is_pushed_by_hand_and_served(
    kafka_config: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = planted_log(600)
    columns = batch.events
    events = [
        event_pb2.Event(user_id=user, session_id=session, item_id=item_id)
        for user, session, item_id in zip(columns.user_id, columns.session_id, columns.item_id, strict=True)
    ]
    write(kafka_config, events, [catalog_pb2.Item(item_id=item.item_id, title=item.title) for item in batch.items])
    given = kafka_config.model_dump(exclude_unset=True, exclude_none=True)
    if kafka_config.sasl_password is not None:
        given["sasl_password"] = kafka_config.sasl_password.get_secret_value()
    for name, value in given.items():
        monkeypatch.setenv(f"OUSEL_KAFKA__{name.upper()}", str(value))
    # As in every engine unless told otherwise, but small; and nobody listens where a push would go.
    small = small_config(nice=0, max_steps=10, ranker_epochs=1, engine="127.0.0.1:1")
    for name, value in small.model_dump(exclude_unset=True).items():
        monkeypatch.setenv(f"OUSEL_TRAINER__{name.upper()}", str(value))

    out = tmp_path / "model.safetensors"
    done = CliRunner().invoke(app, ["train", "--out", str(out)])
    assert done.exit_code == 0, done.output
    figures = load_model(out).figures
    assert figures is not None
    assert (figures["events"], figures["items"]) == (600, 80)

    with running(kafka_config, tmp_path / "engine.log") as engine, ousel.Client(engine.address, DEADLINE_S) as client:
        done = CliRunner().invoke(app, ["push", str(out), "--engine", engine.address])
        assert done.exit_code == 0, done.exception
        assert "as version 1" in done.output
        assert client.recommend(user_id="u1", k=5).model_version == 1
        (model,) = client.list_models().models
        learned = {(at.topic, at.partition): at.offset for at in model.trained_on}
        assert {(at.topic, at.partition): at.offset for at in client.status().reflects}.items() <= learned.items()
