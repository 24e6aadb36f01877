from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.checks import snapshots
from engine.checks.snapshots import look_at_snapshot_folder, look_at_snapshots
from engine.config import Config, SnapshotConfig
from engine.events.source import LogIdentity, LogRange
from tests.engine.snapshot.older import DATA, KAFKA, PARTITIONS

EVENTS, ITEMS = KAFKA.events_topic, KAFKA.items_topic
RANGES = {(EVENTS, number): LogRange(0, 1000) for number in range(PARTITIONS)} | {(ITEMS, 0): LogRange(0, 1000)}
LOG = snapshots._Log(PARTITIONS, LogIdentity(), RANGES)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    folder = tmp_path / "snapshots"
    shutil.copytree(DATA / "format-3", folder)
    folder.chmod(0o700)
    return Config(kafka=KAFKA, snapshot=SnapshotConfig(dir=folder, engine="old"))


def found(config: Config, log: snapshots._Log | None, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    monkeypatch.setattr(snapshots, "_look_at_log", lambda kafka: log)
    return [(one.level.value, one.message) for one in look_at_snapshots(config)]


def test_snapshots_that_fit_the_log_are_ok(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(config, LOG, monkeypatch) == [
        ("ok", f"the snapshots in {config.snapshot.dir} fit the log and the settings: 1")
    ]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (replace(LOG, partitions=1), f"partitions of the events topic was {PARTITIONS} and is 1"),
        (replace(LOG, ranges=RANGES | {(EVENTS, 0): LogRange(0, 1)}), "lies beyond the log's end 1"),
        (replace(LOG, ranges=RANGES | {(EVENTS, 0): LogRange(999, 1000)}), "lies below the log's begin 999"),
        (replace(LOG, ranges={}), "lies beyond the log's end 0"),
    ],
)
@pytest.mark.parametrize(("on_mismatch", "level"), [("refuse", "error"), ("replay", "warning")])
def test_a_snapshot_that_a_start_can_not_use_is_named_with_the_reason(
    log: snapshots._Log, said: str, on_mismatch: str, level: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = config.snapshot.model_copy(update={"on_mismatch": on_mismatch})
    lines = found(config.model_copy(update={"snapshot": section}), log, monkeypatch)
    assert {got for got, _ in lines} == {level}
    assert any(said in line and "partition 0 of the events" in line for _, line in lines)


def test_a_topic_of_another_name_is_another_log(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    other = config.model_copy(update={"kafka": KAFKA.model_copy(update={"items_topic": "other"})})
    lines = found(other, LOG, monkeypatch)
    assert any("no snapshot can give back the catalog" in line and '"other"' in line for _, line in lines)


def test_a_damaged_snapshot_is_a_warning(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.snapshot.dir is not None
    (config.snapshot.dir / "old-000000000001" / "manifest.json").write_text("{}")
    (first, *_) = found(config, LOG, monkeypatch)
    assert first[0] == "warning" and "manifest.json" in first[1]


@pytest.mark.parametrize(
    ("begin", "level", "said"), [(0, "ok", "the log is whole"), (5, "warning", "has deleted the begin")]
)
def test_without_a_snapshot_it_counts_whether_the_log_is_whole(
    begin: int, level: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(kafka=KAFKA, snapshot=SnapshotConfig(dir=tmp_path / "none"))
    ((got, line),) = found(config, replace(LOG, ranges=RANGES | {(EVENTS, 1): LogRange(begin, 1000)}), monkeypatch)
    assert got == level and said in line
    assert found(config, None, monkeypatch)[0][0] == "ok"
    assert not (tmp_path / "none").exists()


def test_the_room_that_is_needed_follows_from_the_last_snapshot(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = look_at_snapshot_folder(config)
    assert (first.level, second.level) == ("ok", "ok")
    assert second.message.endswith("needed for snapshots as large as the last one: 3")
    full = SimpleNamespace(f_bavail=0, f_frsize=4096, f_files=9, f_favail=9)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    _, second = look_at_snapshot_folder(config)
    assert second.level == "error" and "has 0 MiB free" in second.message


def test_the_default_folder_is_looked_at_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    first, second = look_at_snapshot_folder(Config())
    assert f"the default of snapshot.dir {tmp_path / 'snapshots'} does not exist yet" in first.message
    assert "snapshots of about a million users" in second.message
    (one,) = look_at_snapshot_folder(Config(snapshot=SnapshotConfig(enabled=False)))
    assert one.level == "warning"
