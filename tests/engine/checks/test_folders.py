from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.checks.folders import look_at_folder, look_at_room


def of_folder(path: Path) -> tuple[str, str]:
    (one,) = look_at_folder("snapshot.dir", path)
    return one.level.value, one.message


def test_a_folder_of_its_own_is_ok_and_one_that_is_missing_is_not_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert of_folder(tmp_path)[0] == "ok"
    level, line = of_folder(tmp_path / "a" / "b")
    assert level == "ok" and "does not exist yet and is made at the first start" in line
    assert not (tmp_path / "a").exists()


def test_a_folder_that_others_may_look_into_is_a_warning_with_the_command(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    level, line = of_folder(tmp_path)
    assert level == "warning" and "has mode 0755" in line and line.endswith(f"run chmod 700 {tmp_path}")


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    level, line = of_folder(tmp_path / "file" / "x")
    assert level == "error" and f"because {tmp_path / 'file'} is no folder" in line


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # Nothing is closed to the user that tests often run as.
    level, line = of_folder(tmp_path)
    assert level == "error" and "can't be written by the user of number" in line
    assert f"can't be made, because {tmp_path} can't be written" in of_folder(tmp_path / "x")[1]


@pytest.mark.parametrize(
    ("free_mib", "files", "level", "said"),
    [
        (10_000, 5, "ok", "has 10,000 MiB free, and 1,000 MiB are needed for snapshots"),
        (1_500, 5, "warning", "will not be enough for long: make room"),
        (0, 5, "error", "has 0 MiB free, and 1,000 MiB are needed for snapshots: make room"),
        (10_000, 0, "error", "has no room for another file (inodes)"),
    ],
)
def test_a_disk_that_is_full_is_an_error_and_one_that_soon_is_a_warning(
    free_mib: int, files: int, level: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(f_bavail=free_mib * 256, f_frsize=4096, f_files=100, f_favail=files)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    (one,) = look_at_room("snapshot.dir", tmp_path / "later", 1_000 * 2**20, "snapshots")
    assert one.level == level and said in one.message
