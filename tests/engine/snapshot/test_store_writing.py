"""A snapshot appears whole or not at all, and old ones go, whoever shares the folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import engine.snapshot.store
from engine.config import SnapshotConfig
from engine.snapshot.store import SnapshotError, SnapshotStore
from tests.engine.snapshot.saved import (
    ANY,
    CATALOG_LOG,
    SETTINGS,
    assert_same,
    catalog,
    state_of,
    store,
    warnings,
)

# -- several engines --------------------------------------------------------------------------------------------------


def test_engines_share_a_folder_and_the_furthest_slice_wins(tmp_path):
    one, two = store(tmp_path, "a", keep=1), store(tmp_path, "a-000000000001", keep=1)
    one.write(state_of(40, 10))
    for _ in range(3):
        two.write(state_of(30, 50))
    for reader in (one, two, store(tmp_path, "c")):
        assert_same(reader.newest(0, ANY), state_of(40).slices[0])
        assert_same(reader.newest(1, ANY), state_of(50).slices[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-000000000001", "a-000000000001-000000000003"]


def test_the_last_slice_of_a_lost_partition_stays_until_another_engine_is_further(tmp_path):
    loser, heir = store(tmp_path, "loser", keep=1), store(tmp_path, "heir", keep=1)
    last = loser.write(state_of(20, 30))
    for events in (21, 22, 23):
        loser.write(state_of(events))
    assert sorted(path.name for path in tmp_path.iterdir()) == [last.name, "loser-000000000004"]
    heir.write(replace(state_of(), slices={1: state_of(30).slices[0]}))
    loser.write(state_of(24))
    assert last.exists()  # not further: each of the two would rely on the other
    heir.write(replace(state_of(), slices={1: state_of(31).slices[0]}))
    loser.write(state_of(25))
    assert not last.exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_snapshot_deleted_while_it_is_read_gives_way_to_the_newer_one(tmp_path, caplog, monkeypatch):
    writer, reader = store(tmp_path, "a", keep=1), store(tmp_path, "b")
    writer.write(state_of(20))
    read, newer = engine.snapshot.store.read_slice, [state_of(30)]

    def late(folder, manifest, partition):
        if newer:
            writer.write(newer.pop())
        return read(folder, manifest, partition)

    monkeypatch.setattr(engine.snapshot.store, "read_slice", late)
    assert_same(reader.newest(0, ANY), state_of(30).slices[0])
    assert not warnings(caplog)


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept_and_numbered_on(tmp_path, keep):
    for events in range(10, 15):
        path = store(tmp_path, keep=keep).write(state_of(events))
    assert path.name == "a-000000000005"
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"a-{sequence:012}" for sequence in range(6 - keep, 6)]
    assert_same(store(tmp_path).newest(0, ANY), state_of(14).slices[0])


def test_a_half_written_snapshot_is_ignored_and_removed_by_the_next(tmp_path, caplog):
    good = store(tmp_path).write(state_of(20))
    for name in ("a-000000000002.writing", "a-000000000009.deleting"):
        shutil.copytree(good, tmp_path / name)
    (tmp_path / "a-000000000002.writing" / "manifest.json").unlink()
    restarted = store(tmp_path)
    assert_same(restarted.newest(0, ANY), state_of(20).slices[0])
    assert not warnings(caplog)
    path = restarted.write(state_of(30))
    assert set(tmp_path.iterdir()) == {good, path}
    assert_same(restarted.newest(0, ANY), state_of(30).slices[0])


def test_every_failure_on_the_way_leaves_the_older_one_and_no_half(tmp_path, monkeypatch):
    """The disk fills up at the first sync to it, then at the second, and so on."""
    writer = store(tmp_path, keep=1)
    good = writer.write(state_of(20))
    sync, left = os.fsync, 0

    def full(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    # Four data and manifest files, their digest, and the folder that holds them.
    for allowed in range(6):
        left = allowed
        with pytest.raises(SnapshotError, match=r"snapshot\.dir.*No space left"):
            writer.write(state_of(30))
        assert list(tmp_path.iterdir()) == [good]
        assert_same(writer.newest(0, ANY), state_of(20).slices[0])
    left = 7
    writer.write(state_of(30))
    assert_same(writer.newest(0, ANY), state_of(30).slices[0])


def test_killed_at_any_moment_of_a_write_a_whole_one_is_found(tmp_path, caplog, monkeypatch):
    """What lies in the folder at each sync and rename is what a kill would leave."""
    folder, copies = tmp_path / "snapshots", []
    writer = store(folder, keep=1)
    writer.write(state_of(20))
    rename = os.replace

    def kept(*_):
        copies.append(tmp_path / f"killed {len(copies)}")
        shutil.copytree(folder, copies[-1])

    def kept_rename(source, target):
        kept()
        rename(source, target)
        kept()

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", kept)
        patched.setattr(os, "replace", kept_rename)
        writer.write(state_of(30))
    assert len(copies) == 11
    found = []
    for copy in copies:
        restarted = store(copy, keep=1)
        whole = restarted.newest(0, ANY)
        assert whole is not None
        found.append(whole.numbers["position"])
        assert_same(whole, state_of(found[-1]).slices[0])
        assert restarted.newest_catalog(CATALOG_LOG) == catalog()
        restarted.write(state_of(40))
        assert_same(restarted.newest(0, ANY), state_of(40).slices[0])
        assert len(list(copy.iterdir())) == 1
    assert found == [20] * 7 + [30] * 4
    assert not warnings(caplog)


def test_a_rename_that_fails_leaves_the_older_one(tmp_path, monkeypatch):
    writer = store(tmp_path)
    good = writer.write(state_of(20))

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(SnapshotError, match=r"snapshot\.dir.*Input/output error"):
            writer.write(state_of(30))
    assert list(tmp_path.iterdir()) == [good]
    assert_same(writer.newest(0, ANY), state_of(20).slices[0])


def test_what_is_no_disk_error_cleans_up_as_well(tmp_path):
    saved = state_of(20)
    slices = {0: replace(saved.slices[0], users=["\ud800"])}  # can't be told in UTF-8
    with pytest.raises(TypeError):
        store(tmp_path).write(replace(saved, slices=slices))
    assert not list(tmp_path.iterdir())


def test_old_snapshots_that_cannot_be_deleted_do_not_spoil_the_new_one(tmp_path, caplog, monkeypatch):
    writer = store(tmp_path, keep=1)
    old = writer.write(state_of(20))
    rename = os.replace

    def fail_for_old(source, target):
        if Path(source) == old:
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail_for_old)
    path = writer.write(state_of(30))
    assert set(tmp_path.iterdir()) == {old, path}
    assert "can't be deleted" in warnings(caplog)[0]


def test_all_is_on_the_disk_before_the_name_and_the_name_before_write_returns(tmp_path, monkeypatch):
    done: list[int | str] = []
    sync, rename = os.fsync, os.replace

    def noted_sync(descriptor):
        done.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def noted_rename(source, target):
        done.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_rename)
    path = store(tmp_path).write(state_of(20, 30))
    at = done.index("renamed")
    assert {file.stat().st_ino for file in (path, *path.iterdir())} == set(done[:at])
    assert done[at - 1] == path.stat().st_ino
    assert done[at + 1 :] == [tmp_path.stat().st_ino]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SnapshotError, match=rf"snapshot\.dir {path} can't be made"):
            store(path)


def test_an_engine_needs_a_folder_and_a_name_that_is_a_file_name(tmp_path):
    with pytest.raises(SnapshotError, match=r"snapshot\.dir must name a folder"):
        SnapshotStore(SnapshotConfig(), "a", SETTINGS)
    for engine_name in ("", "../a", ".a", "a b", "a/b", "ä", "a" * 201):
        with pytest.raises(SnapshotError, match="name in snapshot"):
            store(tmp_path, engine_name)
