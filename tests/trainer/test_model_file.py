from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights, WeightsError
from trainer.model_file import figures_path, load_model, save_model

FIGURES: dict[str, Any] = {"metrics": {"hit_rate@20": 0.25}, "steps": 3}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    shape = ModelShape(vocabulary=2, content_dim=8, kinds=8, dim=8, heads=1, blocks=1, window=4)
    save_model(path, Weights(Recommender(shape), ["a", "b"]), FIGURES)
    return path


def test_weights_and_figures_come_back(saved: Path) -> None:
    model = load_model(saved)
    assert list(model.weights.vocabulary) == ["a", "b"]
    assert model.data == saved.read_bytes()
    assert model.metrics == {"hit_rate@20": 0.25}
    assert model.figures is not None and model.figures["steps"] == 3


def test_weights_alone_have_no_metrics(saved: Path) -> None:
    figures_path(saved).unlink()
    model = load_model(saved)
    assert model.figures is None and model.metrics == {}


def test_figures_of_other_weights_are_refused(saved: Path) -> None:
    model = load_model(saved).weights
    text = figures_path(saved).read_text()
    torch.nn.init.ones_(model.model.sequence.out.weight)
    save_model(saved, model, FIGURES)
    figures_path(saved).write_text(text)
    with pytest.raises(WeightsError, match=r"model.json: must be of the weights beside it, with SHA-256"):
        load_model(saved)


@pytest.mark.parametrize(
    "figures",
    [
        "",
        "[]",
        "{}",
        '{"sha256": "", "metrics": {"a": NaN}}',
        '{"sha256": "", "metrics": {"a": "b"}}',
        '{"sha256": "", "metrics": {}, "positions": {}}',
        '{"sha256": "", "metrics": {}, "positions": [1]}',
        '{"sha256": "", "metrics": {}, "positions": [{"topic": "t", "partition": 0, "position": "1"}]}',
    ],
)
def test_broken_figures_are_refused(saved: Path, figures: str) -> None:
    figures_path(saved).write_text(figures)
    with pytest.raises(WeightsError, match=r"model.json: must be a JSON object with sha256 and finite metrics"):
        load_model(saved)


def test_what_is_no_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none.safetensors: can't be read: No such file"):
        load_model(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(WeightsError, match=r"text.safetensors: weights must be a safetensors file"):
        load_model(tmp_path / "text.safetensors")


def test_figures_are_json_that_anyone_reads(saved: Path) -> None:
    assert json.loads(figures_path(saved).read_text()).keys() == {"metrics", "steps", "sha256"}
