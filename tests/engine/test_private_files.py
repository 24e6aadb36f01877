"""Files and folders that hold personal data are made in one place, for this user alone, whatever the umask says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import private_files
from engine.private_files import (
    make_new_private_folder,
    make_private_file,
    make_private_folder,
    open_private,
    warn_of_others,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("umask")
def test_what_is_made_is_for_this_user_alone(tmp_path):
    make_private_folder(tmp_path / "a" / "b")
    make_new_private_folder(tmp_path / "c")
    with open_private(tmp_path / "c" / "file") as file:
        file.write(b"whole")
    with open_private(tmp_path / "c" / "new", new=True):
        pass
    make_private_file(tmp_path / "c" / "empty")
    assert {mode(path) for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "c")} == {0o700}
    assert {mode(path) for path in (tmp_path / "c").iterdir()} == {0o600}
    assert (tmp_path / "c" / "file").read_bytes() == b"whole"


def test_a_file_that_was_open_to_others_becomes_private_and_is_written_anew(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    path.chmod(0o644)
    make_private_file(path)
    assert mode(path) == 0o600 and path.read_text() == "before"
    path.chmod(0o644)
    open_private(path).close()
    assert mode(path) == 0o600 and path.read_text() == ""


def test_what_must_be_new_is_refused_where_it_is_there_and_a_link_always(tmp_path):
    (tmp_path / "there").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        open_private(tmp_path / "there", new=True)
    with pytest.raises(FileExistsError):
        make_new_private_folder(tmp_path / "folder")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "there")
    for make in (make_private_file, open_private):
        with pytest.raises(OSError):
            make(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_there_keeps_its_mode_and_is_warned_of_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(private_files, "_warned", set())
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    for _ in range(2):
        make_private_folder(folder)
        warn_of_others(folder)
    assert mode(folder) == 0o755
    [record] = caplog.records
    assert f"others may look into the folder {folder} (mode 0755)" in record.getMessage()
    folder.chmod(0o700)
    monkeypatch.setattr(private_files, "_warned", set())
    warn_of_others(folder)
    assert len(caplog.records) == 1


# What makes files in another way, and why it may.
ELSEWHERE = {
    "engine/private_files.py": "the place itself",
    "engine/kernel_cache.py": "compiled functions, which hold nothing of users and may be shared",
}
WRITES = re.compile(
    r"\.mkdir\(|makedirs\(|\.write_(?:text|bytes)\(|open\([^)\n]*[\"'][rb]*[wax][bt+]*[\"']|O_CREAT|\.touch\("
)


def test_nothing_else_in_engine_and_trainer_makes_files_or_folders():
    sources = [path for room in ("engine", "trainer") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 150
    found = {
        str(path.relative_to(ROOT)): line.strip()
        for path in sources
        for line in path.read_text().splitlines()
        if WRITES.search(line)
    }
    assert found.keys() == ELSEWHERE.keys(), found
