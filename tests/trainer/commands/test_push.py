"""`ousel-trainer push` from a weights file to an engine's servicer."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner, Result

from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights
from tests.trainer.test_push import RecordingServicer, engine, free_address
from trainer.__main__ import app
from trainer.model_file import figures_path, save_model

__all__ = ["engine", "free_address"]  # fixtures


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    shape = ModelShape(vocabulary=1, content_dim=8, kinds=8, dim=8, heads=1, blocks=1, window=4)
    figures = {
        "metrics": {"hit_rate@20": 0.25},
        "refused": None,
        "positions": [{"topic": "ousel.events", "partition": 1, "position": 42}],
    }
    save_model(path, Weights(Recommender(shape), ["a"]), figures)
    return path


def push(weights: Path, *args: str) -> Result:
    return CliRunner().invoke(app, ["push", str(weights), *args])


def test_the_engine_gets_the_file_and_its_figures(weights: Path, engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    done = push(weights, "--engine", address)
    assert done.exit_code == 0, done.output
    assert f"pushed to {address} as version 8: stored and announced\nversion 8 serves\n" in done.output
    assert b"".join(servicer.chunks) == weights.read_bytes()
    assert servicer.header is not None and dict(servicer.header.metrics) == {"hit_rate@20": 0.25}
    (last,) = servicer.header.trained_on
    assert (last.topic, last.partition, last.offset) == ("ousel.events", 1, 41)


def test_weights_without_figures_are_pushed_to_the_engine_of_the_settings(
    weights: Path, engine: tuple[str, RecordingServicer], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, servicer = engine
    figures_path(weights).unlink()
    monkeypatch.setenv("OUSEL_TRAINER__ENGINE", address)
    assert push(weights).exit_code == 0
    assert servicer.header is not None and not servicer.header.metrics


def test_a_refusal_is_one_line_and_exit_code_1(weights: Path, engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    servicer.failures = [grpc.StatusCode.INVALID_ARGUMENT]
    done = push(weights, "--engine", address)
    assert done.exit_code == 1
    assert str(done.exception) == (
        f"ousel-trainer push: engine at {address} did not take weights version 8: INVALID_ARGUMENT: told to fail"
    )


def test_an_engine_that_is_not_there_is_named(
    weights: Path, free_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUSEL_TRAINER__PUSH_TIMEOUT_S", "0.2")
    done = push(weights, "--engine", free_address)
    assert done.exit_code == 1
    assert f"push not done within 0.2 s: engine at {free_address} does not answer" in str(done.exception)


def test_a_file_without_weights_is_not_pushed(weights: Path, engine: tuple[str, RecordingServicer]) -> None:
    weights.write_text("text")
    done = push(weights, "--engine", engine[0])
    assert done.exit_code == 2
    assert "model.safetensors: weights must be a safetensors file" in str(done.exception)
    assert engine[1].header is None


def test_a_password_in_the_address_is_refused_and_not_shown(weights: Path) -> None:
    done = push(weights, "--engine", "me:hunter2@127.0.0.1:50051")
    assert done.exit_code == 2
    assert str(done.exception) == "ousel-trainer push: --engine: must be host:port without a user, a password and an @"
    assert "hunter2" not in done.output
