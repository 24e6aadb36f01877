"""An upgrade of Ousel loses nothing: snapshots of older formats are restored to what this version makes of the log."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from engine.config import SnapshotConfig
from engine.events.source import LogRange
from engine.snapshot.settings import fingerprint
from engine.snapshot.store import SnapshotStore
from engine.snapshot.upgrades import _STEPS, FORMAT, OLDEST_FORMAT
from engine.state.copying import StateCopy
from engine.state.digest import catalog_digest, slice_digest
from engine.state.session_users import FORGOTTEN, NAME, SEEN, USER
from engine.state.slice import SavedSlice
from tests.engine.snapshot.older import CONFIG, DATA, EVENTS, KAFKA, PARTITIONS, folded
from tests.engine.snapshot.saved import warnings

SETTINGS = fingerprint(CONFIG, EVENTS, KAFKA, PARTITIONS)
VERSIONS = sorted(int(path.name.removeprefix("format-")) for path in DATA.glob("format-*"))


def test_every_older_format_has_its_step_and_a_snapshot_to_try_it_with():
    assert sorted(_STEPS) == list(range(OLDEST_FORMAT, FORMAT))
    assert sorted(_STEPS) == VERSIONS


def session_users(saved: SavedSlice) -> dict[int, set[int]]:
    """The users of each session that links any, but those who were forgotten."""
    rows = saved.tables["session_users"].tolist()
    found = {row[NAME]: {*row[USER:]} - {0, FORGOTTEN} for row in rows if row[SEEN] > 0}
    return {name: users for name, users in found.items() if users}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_snapshot_of_an_older_format_is_restored_to_what_folding_its_log_gives_now(tmp_path, caplog, version):
    shutil.copytree(DATA / f"format-{version}", tmp_path, dirs_exist_ok=True)
    tmp_path.chmod(0o700)  # It took the mode of the folder that was copied.
    store = SnapshotStore(SnapshotConfig(dir=tmp_path), "new", SETTINGS)
    copy = StateCopy(folded(), 2**30)
    while not copy.step():
        pass
    now = copy.saved()
    for partition, want in now.slices.items():
        got = store.newest(partition, LogRange(0, 1000))
        assert got is not None
        assert session_users(got) == session_users(want)
        # Nobody knows of older formats what a user had added to an item. Event ids of format 2 do not say whose they
        # are, and its links not when they were made. Nothing else may differ.
        names = ["contributions", "contributions.sums", *(["session_users"] if version == 2 else [])]
        tables = {**want.tables, **{name: got.tables[name] for name in names}}
        bare = [name.partition("\x01")[0] for name in want.recent_ids] if version == 2 else want.recent_ids
        like = replace(want, recent_ids=bare, tables=tables)
        assert slice_digest(got, CONFIG, EVENTS) == slice_digest(like, CONFIG, EVENTS)
    catalog = store.newest_catalog({(KAFKA.items_topic, 0): LogRange(0, 3)})
    assert catalog is not None
    assert catalog.has_attributes is (version > 2)  # Where it has none, they are read from the topic.
    assert catalog_digest(catalog.items) == catalog_digest(now.catalog.items)
    assert catalog.positions == now.catalog.positions
    assert not warnings(caplog)
