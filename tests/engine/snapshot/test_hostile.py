"""Whatever lies in the folder, it is skipped with one line, leads nowhere else, and costs no memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.snapshot.files import DamagedError
from engine.snapshot.folders import LAST_SEQUENCE
from engine.snapshot.lock import EngineLock
from engine.snapshot.losses import SnapshotError
from engine.snapshot.manifest import OtherFormatError, read_manifest
from tests.engine.snapshot.saved import ANY, CATALOG_LOG, assert_same, state_of, store, warnings

MUCH_BYTES = 32 * 2**20


def seal(folder: Path) -> None:
    """Writes the digest that fits the manifest, whatever that says."""
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (folder / "manifest.json.sha256").write_text(f"{digest}  manifest.json\n")


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))
    seal(folder)


# -- links and strange names ------------------------------------------------------------------------------------------


def test_a_symbolic_link_is_neither_followed_nor_deleted_nor_in_the_way(tmp_path, caplog):
    outside = store(tmp_path / "outside", "b").write(state_of(40))
    folder = tmp_path / "snapshots"
    good = store(folder).write(state_of(20))
    for name in ("a-000000000007", "a-000000000008.writing", "a-000000000009.deleting", "b-000000000001"):
        (folder / name).symlink_to(outside)
    writer = store(folder, keep=1)
    assert_same(writer.newest(0, ANY), state_of(20).slices[0])
    assert sorted(warnings(caplog)) == [
        f"snapshot {folder / name} skipped: it is a symbolic link" for name in ("a-000000000007", "b-000000000001")
    ]
    path = writer.write(state_of(30))
    assert path.name == "a-000000000010"
    assert not good.exists()
    assert len(list(outside.iterdir())) == 5
    assert sum(one.is_symlink() for one in folder.iterdir()) == 4


@pytest.mark.parametrize("name", ["manifest.json", "manifest.json.sha256", "slice-0.tables", "slice-0.columns"])
@pytest.mark.parametrize("what", ["link", "pipe", "device"])
def test_a_file_that_is_none_is_not_opened(tmp_path, caplog, name, what):
    path = store(tmp_path).write(state_of(20)) / name
    kept = tmp_path / "kept"
    path.rename(kept)
    if what == "link":
        path.symlink_to(kept)
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert store(tmp_path).newest(0, ANY) is None
    (line,) = warnings(caplog)
    assert f"{path}: is no plain file" in line


def test_a_number_at_the_end_of_its_range_is_skipped_and_the_next_snapshot_has_one_of_its_own(tmp_path, caplog):
    good = store(tmp_path).write(state_of(20))
    for name in ("a-999999999999", f"a-{LAST_SEQUENCE + 1}", "b-999999999999"):
        shutil.copytree(good, tmp_path / name)
    writer = store(tmp_path, keep=1)
    path = writer.write(state_of(30))
    assert path.name == "a-000000000002"
    assert_same(writer.newest(0, ANY), state_of(30).slices[0])
    assert len(warnings(caplog)) == 3
    assert all("no snapshot has a number above" in line for line in warnings(caplog))
    assert (tmp_path / "a-999999999999").is_dir()


def test_where_no_number_can_follow_the_remedy_is_named(tmp_path):
    good = store(tmp_path).write(state_of(20))
    good.rename(tmp_path / f"a-{LAST_SEQUENCE}")
    with pytest.raises(SnapshotError, match=r"move that one away, or give the engine another name"):
        store(tmp_path).write(state_of(30))


def test_digits_of_other_scripts_are_no_number(tmp_path, caplog):
    good = store(tmp_path).write(state_of(20))
    shutil.copytree(good, tmp_path / "a-٠٠٠٠٠٠٠٠٠٠٠٩")
    assert store(tmp_path).write(state_of(30)).name == "a-000000000002"
    assert not warnings(caplog)


# -- manifests --------------------------------------------------------------------------------------------------------


def everywhere(said: Any, value: Any) -> Any:
    """The same with `value` in place of all that is no dict or list."""
    if isinstance(said, dict):
        return {name: everywhere(one, value) for name, one in said.items()}
    return [everywhere(one, value) for one in said] if isinstance(said, list) else value


def slice_0(said: dict[str, Any]) -> dict[str, Any]:
    return said["slices"]["0"]


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a path that leads out": lambda said: slice_0(said)["tables_file"].update(name="../kept"),
    "an absolute path": lambda said: slice_0(said)["columns_file"].update(name="/etc/passwd"),
    "a hidden file": lambda said: slice_0(said)["columns_file"].update(name=".lock"),
    "a partition that is none": lambda said: said["slices"].update({"-1": slice_0(said)}),
    "a partition by another name": lambda said: said["slices"].update({"00": slice_0(said)}),
    "a partition beyond all": lambda said: said["slices"].update({str(2**40): slice_0(said)}),
    "a negative position": lambda said: slice_0(said)["numbers"].update(position=-1),
    "a position beyond 64 bits": lambda said: slice_0(said)["numbers"].update(position=2**70),
    "no position": lambda said: slice_0(said)["numbers"].pop("position"),
    "a number as text": lambda said: slice_0(said)["numbers"].update(position="20"),
    "a slice that began after its end": lambda said: slice_0(said).update(began=2**40),
    "a table of gigabytes": lambda said: slice_0(said)["tables"][0].update(shape=[2**40]),
    "tables that add up past 64 bits": lambda said: slice_0(said)["tables"][0].update(shape=[2**62, 2**62, 2**62]),
    "a file of gigabytes": lambda said: slice_0(said)["tables_file"].update(bytes=2**50),
    "a negative size": lambda said: slice_0(said)["tables_file"].update(bytes=-1),
    "a table of objects": lambda said: slice_0(said)["tables"][0].update(dtype="|O"),
    "a table less": lambda said: slice_0(said)["tables"].pop(),
    "a table twice": lambda said: slice_0(said)["tables"].append(slice_0(said)["tables"][0]),
    "rows that are not there": lambda said: slice_0(said)["rows"].update(users=2**50),
    "a column less": lambda said: slice_0(said)["rows"].pop("users"),
    "settings of another kind": lambda said: said.update(settings=[]),
    "settings as texts": lambda said: said.update(settings=everywhere(said["settings"], "x")),
    "settings of gigabytes": lambda said: said["settings"].update({"state.history": 2**60}),
    "no settings": lambda said: said.update(settings={}),
    "a version that is none": lambda said: said.update(format=[3]),
    "another version": lambda said: said.update(format=10**400),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_manifest_is_skipped_with_one_line_and_costs_no_memory(tmp_path, caplog, forged):
    folder = tmp_path / "snapshots"
    writer = store(folder)
    writer.write(state_of(20))
    newest = writer.write(state_of(30))
    shutil.copy(newest / "slice-0.tables", folder / "kept")
    forge(newest, FORGED[forged])
    reader = store(folder)
    tracemalloc.start()
    found = reader.newest(0, ANY)
    reader.newest_catalog(CATALOG_LOG)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_same(found, state_of(20).slices[0])
    assert most < MUCH_BYTES
    lines = [line for line in warnings(caplog) if "events" in line or "skipped: " in line]
    assert len(lines) == 1, lines
    assert "\n" not in lines[0]
    assert str(newest) in lines[0]
    assert len(lines[0]) < 900


def test_a_catalog_of_other_types_is_skipped(tmp_path, caplog):
    path = store(tmp_path).write(state_of(20))
    records = path / "catalog.items"
    records.write_bytes(records.read_bytes().replace(b'"A title"', b"[1,2,3]"))
    file = {"name": records.name, "bytes": records.stat().st_size}
    file |= {"sha256": hashlib.sha256(records.read_bytes()).hexdigest()}
    forge(path, lambda said: said["catalog"].update(file=file))
    assert store(tmp_path).newest_catalog(CATALOG_LOG) is None
    assert "skipped for the catalog" in warnings(caplog)[0]


def test_a_manifest_that_is_too_large_or_too_deep_is_skipped(tmp_path, caplog):
    path = store(tmp_path).write(state_of(20))
    (path / "manifest.json").write_text("[" * 2_000_000)
    seal(path)
    assert store(tmp_path).newest(0, ANY) is None
    with (path / "manifest.json").open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no room on the disk
    assert store(tmp_path).newest(0, ANY) is None
    assert "makes no sense" in warnings(caplog)[0]
    assert f"has {2**40} bytes" in warnings(caplog)[1]


TREE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Any]:
    """What a good manifest says."""
    path = store(tmp_path_factory.mktemp("whole")).write(state_of(20))
    return json.loads((path / "manifest.json").read_text())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_manifest_raises_anything_but_the_named_errors(whole, data):
    """A good one in which any part is anything else, or which is cut anywhere."""
    said = json.loads(json.dumps(whole))
    at, key = said, data.draw(st.sampled_from(sorted(said)))
    while isinstance(at[key], dict | list) and len(at[key]) and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    at[key] = data.draw(TREE)
    text = json.dumps(said).encode()
    text = text[: data.draw(st.integers(0, len(text)))] if data.draw(st.booleans()) else text
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_bytes(text)
        seal(Path(folder))
        try:
            manifest = read_manifest(Path(folder))
        except (DamagedError, OtherFormatError) as error:
            assert "\n" not in str(error)
            return
        assert all(type(position) is int for position in manifest.positions.values())


def edited_columns(path: Path, edit: Callable[[bytes], bytes]) -> None:
    """Changes the ids and lists of a slice, with sizes and digests that fit."""
    file = path / "slice-0.columns"
    file.write_bytes(edit(file.read_bytes()))
    entry = {"name": file.name, "bytes": file.stat().st_size}
    entry |= {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    forge(path, lambda said: slice_0(said).update(columns_file=entry))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_numbers_in_the_tables_lead_the_fold_out_of_them(data):
    """Compiled code would follow them: what is not a slice is refused, whatever its digest."""
    with tempfile.TemporaryDirectory() as folder:
        path = store(Path(folder)).write(state_of(40))
        file = path / "slice-0.tables"
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        forge(path, lambda said: slice_0(said)["tables_file"].update(sha256=digest))
        found = store(Path(folder)).newest(0, ANY)
        if found is not None:  # one that could be: it may be restored and gone on from
            from tests.engine.logs import decoded
            from tests.engine.snapshot.saved import ROWS, fold, new_slice

            slice_ = new_slice()
            slice_.restore(found)
            fold(slice_, decoded(ROWS[40:], 2**40))


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b'"u2"', b"17"),
        lambda text: text.replace(b'["users"', b'["items"', 1),
        lambda text: text.replace(b'["lists.user_items.blocks",[', b'["lists.user_items.blocks",[9'),
        lambda text: text.replace(b'["lists.landmark",[', b'["lists.landmark",["x",'),
        lambda text: text + b'["unheard of",[1]]\n',
        lambda text: b"null\n" + text,
    ],
)
def test_ids_and_lists_that_are_none_are_skipped(tmp_path, caplog, edit):
    path = store(tmp_path).write(state_of(20))
    before = (path / "slice-0.columns").read_bytes()
    edited_columns(path, edit)
    assert (path / "slice-0.columns").read_bytes() != before
    assert store(tmp_path).newest(0, ANY) is None
    assert len(warnings(caplog)) == 1


# -- who may read and write -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_nobody_else_may_read_what_users_did_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        path = store(tmp_path / "snapshots").write(state_of(20))
        EngineLock(tmp_path / "snapshots", "a").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = [*path.iterdir(), tmp_path / "snapshots" / ".a.lock"]
    assert len(files) == 6
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_folder_that_was_deleted_meanwhile_is_made_again_for_nobody_else(tmp_path):
    writer = store(tmp_path / "snapshots")
    (tmp_path / "snapshots").rmdir()
    path = writer.write(state_of(20))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


HOLD = """
import sys, threading
from pathlib import Path
from engine.snapshot.lock import EngineLock
lock = EngineLock(Path(sys.argv[1]), "a")
print("held", flush=True)
threading.Event().wait()
"""


def test_a_second_engine_of_the_name_is_refused_until_the_first_ends_even_by_sigkill(tmp_path):
    good = store(tmp_path).write(state_of(20))
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(SnapshotError, match=rf"the name 'a', process {first.pid} on .*snapshot\.engine"):
            EngineLock(tmp_path, "a")
        EngineLock(tmp_path, "b").close()
        assert_same(store(tmp_path, "b").newest(0, ANY), state_of(20).slices[0])  # reading needs no lock
        assert good.exists()
    finally:
        first.kill()
        first.wait()
    EngineLock(tmp_path, "a").close()


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".a.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(SnapshotError, match="can't be locked"):
        EngineLock(tmp_path, "a")
    assert (tmp_path / "precious").read_text() == "precious"


def test_where_the_disk_has_no_locks_that_is_said_once_and_the_engine_starts(tmp_path, caplog, monkeypatch):
    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", none)
    EngineLock(tmp_path, "a").close()
    (line,) = warnings(caplog)
    assert "can't be locked" in line
