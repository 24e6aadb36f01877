from __future__ import annotations

import logging
from pathlib import Path

import pytest

from engine.config import SnapshotConfig
from engine.events.source import LogIdentity
from engine.snapshot.default_folder import default_folder, folder_of_log, usual_name, with_folder
from engine.snapshot.store import SnapshotStore
from tests.engine.snapshot.saved import SETTINGS


def test_the_folder_is_the_users_whatever_the_working_directory() -> None:
    assert default_folder({}) == Path.home() / ".local/state/ousel/snapshots"
    assert default_folder({"XDG_STATE_HOME": "/home/ada/state"}) == Path("/home/ada/state/ousel/snapshots")
    # The rules of XDG have a path ignored that is not absolute.
    assert default_folder({"XDG_STATE_HOME": "state"}) == Path.home() / ".local/state/ousel/snapshots"


def test_a_unit_of_systemd_has_its_own() -> None:
    given = {"STATE_DIRECTORY": "/var/lib/ousel:/var/lib/other", "XDG_STATE_HOME": "/home/ada/state"}
    assert default_folder(given) == Path("/var/lib/ousel/snapshots")


def test_the_default_folder_is_made_for_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "not/yet"))
    with caplog.at_level(logging.INFO):
        config = with_folder(SnapshotConfig(keep=7))
    assert config == SnapshotConfig(keep=7, dir=tmp_path / "not/yet/ousel/snapshots")
    assert config.dir is not None
    assert config.dir.stat().st_mode & 0o777 == 0o700
    assert str(config.dir) in caplog.text
    assert with_folder(SnapshotConfig(keep=7)) == config


def test_a_folder_that_was_chosen_is_left_alone(tmp_path: Path) -> None:
    chosen = SnapshotConfig(dir=tmp_path / "mine")
    assert with_folder(chosen) is chosen
    assert not (tmp_path / "mine").exists()


def test_where_the_default_cannot_be_made_one_line_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert with_folder(SnapshotConfig()) is None
    (line,) = caplog.messages
    assert "set snapshot.dir (OUSEL_SNAPSHOT__DIR)" in line
    assert str(tmp_path / "file") in line


def test_a_user_without_a_home_has_no_default(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless() -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert with_folder(SnapshotConfig()) is None
    assert "could not determine home directory" in caplog.text


def test_nothing_is_made_where_snapshots_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert with_folder(SnapshotConfig(enabled=False, dir=tmp_path / "mine")) is None
    assert list(tmp_path.iterdir()) == []


def test_each_log_has_a_folder_of_its_own_in_the_default_one(tmp_path: Path) -> None:
    """So that a second log, which nobody meant to share the folder with the first, is no reason to refuse the start."""
    logs = [
        folder_of_log(tmp_path, LogIdentity(cluster), topic, 1)
        for cluster in ("4L6g3nShT-eMCtK--X86sw", "../up", None)
        for topic in ("ousel.events", "other")
    ]
    assert len(set(logs)) == 6
    assert all(log.parent == tmp_path for log in logs)


def test_a_log_of_a_broker_without_ids_is_told_from_the_next_one_by_its_first_event(tmp_path: Path) -> None:
    first, next_one = (folder_of_log(tmp_path, LogIdentity("c", began_ms=at), "events", 1) for at in (1000, 2000))
    assert first != next_one
    assert first == folder_of_log(tmp_path, LogIdentity("c", began_ms=1000), "events", 2)


def test_a_log_without_ids_and_events_has_a_folder_that_no_other_start_finds(tmp_path: Path) -> None:
    assert len({folder_of_log(tmp_path, LogIdentity("c"), "events", started_ms) for started_ms in (1, 2)}) == 2


def test_an_empty_log_whose_topic_has_an_id_keeps_its_folder(tmp_path: Path) -> None:
    identity = LogIdentity("c", {"events": "id"})
    assert len({folder_of_log(tmp_path, identity, "events", started_ms) for started_ms in (1, 2)}) == 1


@pytest.mark.parametrize("host", ["shop-1", "-odd host-", "büro", "..", "h" * 300])
def test_the_usual_name_can_be_used_whatever_the_host_is_called(host: str, tmp_path: Path) -> None:
    SnapshotStore(SnapshotConfig(dir=tmp_path), usual_name(host, 50051), SETTINGS)
