"""What the trainer shows of itself, and how that is served."""

from __future__ import annotations

import logging
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.trainer.stage import Stage, records
from trainer import metrics
from trainer.archive.archive import Archive
from trainer.commands.run import _metrics
from trainer.config import TrainerConfig


def sample(name: str, /, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"ousel_trainer_{name}", labels) or 0.0


NAMES = [
    ("trainings_total", {"outcome": "finished"}), ("trainings_total", {"outcome": "diverged"}),
    ("models_total", {"outcome": "pushed"}), ("models_total", {"outcome": "refused"}),
    ("pushes_total", {"outcome": "accepted"}), ("pushes_total", {"outcome": "refused"}),
    ("pushes_total", {"outcome": "failed"}), ("events_read_total", {}), ("training_seconds_count", {}),
]  # fmt: skip


def risen(stage: Stage) -> list[float]:
    before = [sample(name, **labels) for name, labels in NAMES]
    stage.service.run(once=True)
    return [sample(name, **labels) - was for (name, labels), was in zip(NAMES, before, strict=True)]


def test_a_training_whose_model_is_pushed_counts_with_its_events_and_its_figures() -> None:
    assert risen(Stage([records(0, 30)], [0.25])) == [1, 0, 1, 0, 1, 0, 0, 30, 1]
    assert sample("model_figure", name="ndcg@20") == 0.25
    assert (sample("steps"), sample("training"), sample("lag_records")) == (1, 0, 0)
    assert sample("last_outcome", outcome="finished") == 1
    assert sample("model_timestamp_seconds") > 1.7e9


def test_a_model_that_the_gate_refuses_counts_as_refused_and_is_no_push() -> None:
    assert risen(Stage([records(0, 30)], [0.05])) == [1, 0, 0, 1, 0, 0, 0, 30, 1]


def test_a_training_that_diverges_is_the_last_outcome() -> None:
    stage = Stage([records(0, 30)], [])
    stage.diverges = [1]
    assert risen(stage) == [0, 1, 0, 0, 0, 0, 0, 30, 1]
    assert (sample("last_outcome", outcome="diverged"), sample("last_outcome", outcome="finished")) == (1, 0)


def test_a_push_that_is_refused_and_one_that_fails_are_told_apart() -> None:
    refused, failed = Stage([records(0, 30)], [0.2]), Stage([records(0, 30)], [0.2])
    refused.refuse_pushes, failed.push_failures = [1], 1
    assert risen(refused)[4:7] == [0, 1, 0]
    assert risen(failed)[4:7] == [0, 0, 1]


def test_the_archive_shows_its_bytes(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", 36_500, TrainerConfig().events, "ousel.events")
    try:
        Stage([records(0, 30)], [0.2], archive=archive).service.run(once=True)
        files = list((tmp_path / "archive").glob("day=*/*.parquet"))
        assert sample("archive_bytes") == sum(path.stat().st_size for path in files) > 0
    finally:
        archive.close()


def settings(**trainer: object) -> TrainerConfig:
    return TrainerConfig.model_validate({"trainer": {"metrics_port": 0} | trainer})


def test_the_port_serves_the_trainers_metrics_and_none_of_the_engines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), _metrics(settings()):
        address = caplog.messages[-1].removeprefix("metrics on ")
        with urllib.request.urlopen(f"http://{address}", timeout=30) as answer:
            text = answer.read().decode()
    assert 'ousel_build_info{program="trainer"' in text
    assert "ousel_trainer_training " in text
    assert "process_resident_memory_bytes" in text
    assert "ousel_ready" not in text


def test_a_port_that_is_taken_is_said_in_one_line_and_ends_no_training(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _metrics(settings(metrics_port=port)):
            pass
    (line,) = [message for message in caplog.messages if "metrics" in message]
    assert line.startswith(f"trainer.metrics_port: the metrics can't be served on 127.0.0.1:{port} (Address already")


def test_metrics_that_are_switched_off_take_no_port(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), _metrics(settings(metrics_enabled=False)):
        pass
    assert not [message for message in caplog.messages if "metrics" in message]
