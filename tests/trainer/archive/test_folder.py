from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.engine import logs
from tests.engine.logs import Line
from tests.trainer.archive.cases import Trainer, archived, counted, opened, present, stop
from tests.trainer.planted import KINDS
from trainer.archive.archive import Archive
from trainer.archive.folder import ArchiveError

LOG = logs.numbered([Line("u", item="x", time_ms=20_000 * 86_400_000 - day * 86_400_000) for day in range(3)])


def filled(path: Path, topic_id: str | None = None) -> None:
    trainer = Trainer(opened(path, topic_id=topic_id), LOG, {})
    trainer.read()
    stop(trainer.archive)


def test_one_trainer_at_a_time_has_the_folder(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(ArchiveError, match="is used by another trainer: each needs a folder of its own"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_a_topic_made_anew_is_known_by_the_brokers_id(tmp_path: Path) -> None:
    filled(tmp_path)
    opened(tmp_path, topic_id="A").close()  # a broker that has learned to give ids
    opened(tmp_path).close()
    opened(tmp_path, topic_id="A").close()
    with pytest.raises(ArchiveError, match=r"is of topic 'ousel.events' \(id A\), the log is 'ousel.events' \(id B\)"):
        opened(tmp_path, topic_id="B")
    opened(tmp_path, topic_id="A").close()  # the refused one has let go of it


def test_another_topic_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(ArchiveError, match=r"is of topic 'ousel.events', the log is 'clicks'"):
        Archive(tmp_path, 90, KINDS, "clicks")


def test_what_does_not_count_is_deleted_and_what_is_not_the_archives_let_be(tmp_path: Path) -> None:
    filled(tmp_path)
    day = tmp_path / counted(tmp_path)[0].split("/")[0]
    for name in ("00000077.parquet", "00000078.parquet.writing", "notes.txt"):
        (day / name).write_bytes(b"")
    (tmp_path / "day=2020-01-01").mkdir()
    (tmp_path / "day=2020-01-01" / "00000079.parquet").write_bytes(b"")
    opened(tmp_path).close()
    assert present(tmp_path) == sorted([*counted(tmp_path), f"{day.name}/notes.txt"])
    assert not (tmp_path / "day=2020-01-01").exists()


def test_a_day_deleted_by_hand_is_told_and_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path)
    (tmp_path / counted(tmp_path)[0]).unlink()
    opened(tmp_path).close()
    assert "is gone, and 1 events with it" in caplog.text
    assert [line.offset for line in archived(tmp_path)] == [0, 1]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / counted(tmp_path)[1]
    path.write_bytes(b"PAR1 and so on")
    with pytest.raises(ArchiveError, match=rf"{path} can't be read: .*without the file, the rest"):
        Trainer(opened(tmp_path), LOG, {0: 3})


def test_files_without_their_list_are_never_deleted(tmp_path: Path) -> None:
    filled(tmp_path)
    files = present(tmp_path)
    (tmp_path / "archive.json").unlink()
    with pytest.raises(ArchiveError, match=r"archive.json is missing, and there are files beside it"):
        opened(tmp_path)
    (tmp_path / "archive.json").write_text('{"format": 2}')
    with pytest.raises(ArchiveError, match=r"archive.json is damaged"):
        opened(tmp_path)
    assert present(tmp_path) == files


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match=r"trainer.archive_dir .*file can't be made or written"):
        opened(tmp_path / "file")


@pytest.mark.parametrize("name", ["../kept.parquet", "/etc/passwd", "day=2020-01-01/../../kept.parquet", "kept"])
def test_a_manifest_whose_names_lead_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    filled(tmp_path / "archive")
    (tmp_path / "kept.parquet").write_bytes(b"kept")
    path = tmp_path / "archive" / "archive.json"
    said = json.loads(path.read_text())
    said["files"][0]["name"] = name
    path.write_text(json.dumps(said))
    with pytest.raises(ArchiveError, match="is damaged"):
        opened(tmp_path / "archive")
    assert (tmp_path / "kept.parquet").read_bytes() == b"kept"


def test_what_a_link_leads_to_is_neither_read_nor_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive, outside = tmp_path / "archive", tmp_path / "outside"
    filled(archive)
    outside.mkdir()
    (outside / "00000088.parquet").write_bytes(b"kept")
    (archive / "day=2020-01-01").symlink_to(outside)
    first = archive / counted(archive)[0]
    first.rename(outside / "moved")
    first.symlink_to(outside / "moved")
    opened(archive).close()
    assert "is gone, and 1 events with it" in caplog.text
    assert sorted(path.name for path in outside.iterdir()) == ["00000088.parquet", "moved"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_may_read_what_users_did_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        filled(tmp_path / "archive")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in [tmp_path / "archive", *(tmp_path / "archive").rglob("*")]}
    assert modes == {0o600, 0o700}
    assert (tmp_path / "archive").stat().st_mode & 0o777 == 0o700
