"""Where models lie by default, and what may be set."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import Config, ConfigError, KafkaConfig, RegistryConfig, SnapshotConfig, load_config, models_topic
from engine.registry.errors import RegistryError
from engine.registry.folders import local_copy, registry_place


def test_models_lie_in_the_folder_of_the_snapshots_or_beside_the_default_one(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    named = Config(snapshot=SnapshotConfig(dir=tmp_path / "snapshots"))
    assert registry_place(named).shown == str(tmp_path / "snapshots" / "models")
    assert registry_place(Config()).shown == str(tmp_path / "state" / "ousel" / "models")
    off = Config(snapshot=SnapshotConfig(enabled=False, dir=tmp_path / "snapshots"))
    assert registry_place(off).shown == str(tmp_path / "state" / "ousel" / "models")
    assert registry_place(Config(registry=RegistryConfig(dir="s3://shop/models"))).shown == "s3://shop/models"


def test_without_a_home_folder_pushes_are_refused_with_the_reason(monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(RegistryError, match=r"registry\.dir must name a folder, .*: no home"):
        registry_place(Config()).write("a", b"x")
    assert local_copy(Config(), "a") is None


@pytest.mark.parametrize(
    ("events", "models"),
    [
        ("ousel.events", "ousel.models"), ("events", "models"), ("shop.events.eu", "shop.models.eu"),
        ("clicks", "clicks.models"), ("my-events", "my-events.models"),
    ],
)  # fmt: skip
def test_the_topic_is_named_after_that_of_the_events(events: str, models: str):
    assert models_topic(RegistryConfig(), KafkaConfig(events_topic=events)) == models
    assert models_topic(RegistryConfig(topic="mine"), KafkaConfig(events_topic=events)) == "mine"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DIR", "ftp://host/models", "registry.dir: must be a folder, or an address that begins with one of file, s3"),
        ("DIR", "s3://", "must be a folder"),
        ("DIR", "s3://me:hunter2@bucket/models", "must not hold a user or a password"),
        ("TOPIC", "ousel.items", r"registry: topic must differ from kafka\.items_topic"),
        ("KEEP", "0", "registry.keep: must be a whole number >= 1"),
    ],
)
def test_a_wrong_place_or_topic_ends_the_start(monkeypatch, name: str, value: str, message: str):
    monkeypatch.setenv(f"OUSEL_REGISTRY__{name}", value)
    with pytest.raises(ConfigError, match=message) as error:
        load_config()
    assert "hunter2" not in str(error.value)
