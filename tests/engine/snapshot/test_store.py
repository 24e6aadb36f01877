"""The newest good snapshot is found, whatever lies in the folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import EventsConfig
from engine.events.source import LogRange
from engine.snapshot.checks import check_slice
from engine.snapshot.settings import fingerprint
from engine.state.copying import SavedCatalog
from tests.engine.snapshot.saved import (
    ANY,
    CATALOG_LOG,
    CONFIG,
    EVENTS,
    KAFKA,
    SETTINGS,
    assert_same,
    catalog,
    state_of,
    store,
    warnings,
)


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """A manifest that says something else and is whole."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json.sha256").write_text(f"{digest}  manifest.json\n")


def test_after_a_restart_everything_comes_back(tmp_path, caplog):
    saved = state_of(20, 30)
    store(tmp_path / "made" / "here").write(saved)
    again = store(tmp_path / "made" / "here")
    for partition in (0, 1):
        assert_same(again.newest(partition, ANY), saved.slices[partition])
    assert again.newest_catalog(CATALOG_LOG) == saved.catalog
    assert again.newest(2, ANY) is None
    assert not warnings(caplog)


def test_a_snapshot_of_nothing_is_one(tmp_path):
    saved = replace(state_of(0), catalog=SavedCatalog([], {}, 0))
    store(tmp_path).write(saved)
    assert_same(store(tmp_path).newest(0, LogRange(0, 0)), saved.slices[0])
    assert store(tmp_path).newest_catalog({}) == saved.catalog


def test_an_empty_folder_has_nothing(tmp_path, caplog):
    assert store(tmp_path).newest(0, ANY) is None
    assert store(tmp_path).newest_catalog(CATALOG_LOG) is None
    assert not caplog.records


def test_what_is_not_ours_is_neither_read_nor_touched(tmp_path, caplog):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "a-000000000007").write_text("a file with the name of a snapshot")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "b-000000000001.writing").mkdir()
    before = set(tmp_path.iterdir())
    writer = store(tmp_path, keep=1)
    for _ in range(3):
        path = writer.write(state_of(20))
    assert set(tmp_path.iterdir()) == before | {path}
    assert_same(writer.newest(0, ANY), state_of(20).slices[0])
    (line,) = warnings(caplog)  # once
    assert f"{tmp_path / 'a-000000000007'} skipped: it is no folder" in line


# -- damage -----------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncate, extend, flip, empty, Path.unlink, make_folder])
@pytest.mark.parametrize(
    "name", ["manifest.json", "manifest.json.sha256", "slice-0.tables", "slice-0.columns", "catalog.items"]
)
def test_a_damaged_file_is_named_and_the_one_before_used(tmp_path, caplog, name, damage):
    writer = store(tmp_path)
    writer.write(state_of(20))
    newest = writer.write(replace(state_of(30), catalog=replace(catalog(), positions={("ousel.items", 0): 4})))
    damage(newest / name)
    found, found_catalog = store(tmp_path).newest(0, ANY), store(tmp_path).newest_catalog(CATALOG_LOG)
    assert found is not None
    assert found_catalog is not None
    is_catalog = name.startswith("catalog")
    assert found.numbers["position"] == (30 if is_catalog else 20)
    assert found_catalog.positions["ousel.items", 0] == (4 if name.startswith("slice") else 3)
    assert all(str(newest) in line and name.removesuffix(".sha256") in line for line in warnings(caplog))
    assert len(warnings(caplog)) == (2 if name.startswith("manifest") else 1)


def test_damage_everywhere_leaves_nothing_and_no_error(tmp_path, caplog):
    path = store(tmp_path).write(state_of(20))
    for file in path.iterdir():
        file.unlink()
    assert store(tmp_path).newest(0, ANY) is None
    assert store(tmp_path).newest_catalog(CATALOG_LOG) is None
    assert "manifest.json: is missing" in warnings(caplog)[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": 2, "slices": []}', "\xff"])
def test_a_manifest_that_makes_no_sense_is_skipped(tmp_path, caplog, text):
    store(tmp_path).write(state_of(20))
    bad = tmp_path / "b-000000000001"
    bad.mkdir()
    (bad / "manifest.json").write_text(text, encoding="latin-1")
    rewrite = hashlib.sha256((bad / "manifest.json").read_bytes()).hexdigest()
    (bad / "manifest.json.sha256").write_text(f"{rewrite}  manifest.json\n")
    reader = store(tmp_path)
    assert_same(reader.newest(0, ANY), state_of(20).slices[0])
    assert_same(reader.newest(0, ANY), state_of(20).slices[0])
    (line,) = warnings(caplog)  # once, however often it is looked for
    assert str(bad / "manifest.json") in line


def test_files_that_are_not_what_the_manifest_describes_are_skipped(tmp_path, caplog):
    path = store(tmp_path).write(state_of(20))
    slices = json.loads((path / "manifest.json").read_text())["slices"]
    del slices["0"]["rows"]["users"]
    rewrite_manifest(path, slices=slices)
    assert store(tmp_path).newest(0, ANY) is None
    assert str(path) in warnings(caplog)[0]


def test_another_format_version_is_skipped_and_named(tmp_path, caplog):
    writer = store(tmp_path)
    writer.write(state_of(20))
    newer = writer.write(state_of(30))
    rewrite_manifest(newer, format=99, slices="of another kind")
    assert_same(store(tmp_path).newest(0, ANY), state_of(20).slices[0])
    assert "format version 99" in warnings(caplog)[0]
    assert str(newer) in warnings(caplog)[0]


def test_a_folder_that_goes_away_is_told_and_made_again(tmp_path, caplog):
    writer = store(tmp_path / "s")
    (tmp_path / "s").rmdir()
    assert writer.newest(0, ANY) is None
    assert writer.newest_catalog(CATALOG_LOG) is None
    assert str(tmp_path / "s") in warnings(caplog)[0]
    assert writer.write(state_of(20)).is_dir()


# -- settings and positions -------------------------------------------------------------------------------------------

KINDS = EventsConfig().kinds


def under(
    state: dict | None = None, events: dict | None = None, kafka: dict | None = None, partitions: int = 1
) -> dict:
    """The settings of a start at which some of them have changed."""
    sections = (CONFIG, state), (EVENTS, events), (KAFKA, kafka)
    return fingerprint(*(section.model_copy(update=changed or {}) for section, changed in sections), partitions)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (under(kafka={"events_topic": "e"}), 'kafka.events_topic was "ousel.events" and is "e"'),
        (under(events={"kinds": {"view": 1.0, "cart": 9.0}}), "events.kinds no longer has 'click', 'play', of which"),
        (under(events={"kinds": {"view": 1.0, "click": 1.0}}), "events.kinds no longer has 'play', of which it holds"),
    ],
)
def test_a_slice_that_cannot_be_converted_is_skipped_and_the_setting_named(tmp_path, caplog, now, said):
    path = store(tmp_path).write(state_of(20))
    reader = store(tmp_path, settings=now)
    assert reader.newest(0, ANY) is None
    (line,) = warnings(caplog)
    assert said in line
    assert str(path) in line


def test_a_full_catalog_says_which_records_it_keeps_for_events_and_where_its_records_lie_in_the_topic(tmp_path):
    items = [replace(one, offset=7, partition=1) for one in catalog().items]
    for full in (replace(catalog(), items=items, used=1, dropped=True), replace(catalog(), items=items, dropped=False)):
        store(tmp_path).write(replace(state_of(30), catalog=full))
        found = store(tmp_path).newest_catalog(CATALOG_LOG)
        assert found == full
        assert {(one.offset, one.partition) for one in found.items} == {(7, 1)}


def test_the_catalog_of_another_topic_is_skipped(tmp_path, caplog):
    store(tmp_path).write(state_of(20))
    reader = store(tmp_path, settings=under(kafka={"items_topic": "i"}))
    assert reader.newest_catalog(CATALOG_LOG) is None
    assert reader.newest(0, ANY) is not None
    (line,) = warnings(caplog)
    assert 'skipped for the catalog: kafka.items_topic was "ousel.items" and is "i"' in line


@pytest.mark.parametrize(
    "now",
    [
        under(events={"kinds": KINDS | {"hide": 0.5}}),
        under(events={"kinds": {"hide": 0.5, **KINDS}}),
        under(events={"kinds": dict.fromkeys(KINDS, 7.0)}),
        under(events={"relations": EventsConfig().relations | {"blocks": 0.0}}),
        under(events={"relations": {"has": 1.0}}),  # no relation of another is held
        under(events={"kinds": {"play": 1.0, "click": 1.0, "view": 1.0}}),  # nor an event of the others
        under(events={"default_kind": "cart", "default_user_relation": "friend", "default_item_relation": "friend"}),
        under({"history": 256, "neighbors": 32, "relations": 64, "duplicates_window": 99}),
        under({"history": 2, "neighbors": 1, "relations": 1, "duplicates_window": 0}),
        under({"max_users": 99, "max_items": 99, "max_targets": 99}),
        under({"max_users": 1, "max_items": 1, "max_targets": 1}),
        under({"session_gap_s": 1.0, "half_lives_s": (5.0, 7 * 86_400.0)}),
        under({"features_dim": 3, "content_dim": 16}),
        under({"content_encoder": "sentence-transformer", "content_model": "any"}),
        under(partitions=8),
        SETTINGS | {"state.of_a_later_version": 1},
        {name: value for name, value in SETTINGS.items() if name != "state.session_gap_s"},
    ],
)
def test_under_most_other_settings_a_snapshot_is_restored(tmp_path, caplog, now):
    store(tmp_path).write(state_of(40))
    reader = store(tmp_path, settings=now)
    found = reader.newest(0, ANY)
    assert found is not None
    check_slice(found, now)
    assert reader.newest_catalog(CATALOG_LOG) is not None
    assert not warnings(caplog)


@pytest.mark.parametrize(
    ("log_range", "position", "said"),
    [
        (LogRange(0, 30), 30, None),
        (LogRange(30, 99), 30, None),
        (LogRange(0, 29), 20, "position 30 lies beyond the log's end 29"),
        (LogRange(0, 20), 20, "position 30 lies beyond the log's end 20"),
        (LogRange(20, 20), 20, "position 30 lies beyond"),
        (LogRange(0, 0), None, "position 20 lies beyond the log's end 0"),
        (LogRange(31, 99), None, "position 30 lies below the log's begin 31: records in between are gone"),
    ],
)
def test_the_position_must_lie_within_the_log(tmp_path, caplog, log_range, position, said):
    writer = store(tmp_path)
    for events in (20, 30):
        writer.write(state_of(events))
    found = writer.newest(0, log_range)
    assert (found and found.numbers["position"]) == position
    assert said is None or any(said in line for line in warnings(caplog))
    assert bool(warnings(caplog)) == bool(said)


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({("ousel.items", 0): LogRange(3, 3)}, None),
        (CATALOG_LOG | {("ousel.items", 1): LogRange(0, 9)}, None),
        ({("ousel.items", 0): LogRange(0, 2)}, "ousel.items[0]: its position 3 lies beyond"),
        ({("ousel.items", 0): LogRange(4, 9)}, "ousel.items[0]: its position 3 lies below"),
        ({("ousel.items", 1): LogRange(0, 9)}, "ousel.items[0]: the log has no such partition"),
    ],
)
def test_every_position_of_the_catalog_must_lie_within_the_log(tmp_path, caplog, ranges, said):
    store(tmp_path).write(state_of(20))
    found = store(tmp_path).newest_catalog(ranges)
    assert (found is None) == (said is not None)
    assert [said] == [said for line in warnings(caplog) if said in line] or said is None
