"""No snapshot is deleted that was skipped, and a start that would lose what one holds says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import EventsConfig, SnapshotConfig
from engine.events.source import Assignment, LogIdentity, LogRange
from engine.partitions import take
from engine.snapshot.losses import SnapshotError
from engine.snapshot.settings import fingerprint
from engine.snapshot.store import SnapshotStore
from engine.state.copying import SavedState, StateCopy
from engine.state.state import State
from tests.engine.logs import Line, batch
from tests.engine.snapshot.saved import CONFIG, EVENTS, KAFKA, SETTINGS, state_of, store, warnings
from tests.engine.snapshot.test_store import flip, rewrite_manifest

TOPIC, ITEMS = KAFKA.events_topic, KAFKA.items_topic
FEWER_KINDS = fingerprint(CONFIG, EventsConfig(kinds={"view": 1.0, "hide": 1.0}), KAFKA, 1)
HERE = LogIdentity("cluster", {TOPIC: "events id", ITEMS: "items id"})


def started(snapshots: SnapshotStore, begin: int, end: int, *, may_lose: bool = False, items: LogRange | None = None):
    """A state as a start with this log makes it."""
    state = State(CONFIG, EVENTS)
    log = {(TOPIC, 0): LogRange(begin, end), (ITEMS, 0): items or LogRange(0, 9)}
    take(Assignment(log, {TOPIC: 1, ITEMS: 1}), state, snapshots, may_lose=may_lose)
    return state


def saved(state: State) -> SavedState:
    copy = StateCopy(state, 2**30)
    while not copy.step():
        pass
    return copy.saved()


def at(path: Path, identity: LogIdentity, settings: dict = SETTINGS, keep: int = 1) -> SnapshotStore:
    return SnapshotStore(SnapshotConfig(dir=path, keep=keep), "a", settings, identity)


def names(path: Path) -> set[str]:
    return {folder.name for folder in path.iterdir()}


@pytest.mark.parametrize(
    ("begin", "end", "settings", "identity", "reason"),
    [
        (25, 99, SETTINGS, HERE, "its position 20 lies below the log's begin 25: records in between are gone"),
        (0, 19, SETTINGS, HERE, "its position 20 lies beyond the log's end 19"),
        (5, 99, FEWER_KINDS, HERE, "events.kinds no longer has 'click', 'play'"),
        (0, 99, SETTINGS, replace(HERE, cluster_id="other"), "it was taken of cluster cluster, the log is of cluster"),
        (0, 99, SETTINGS, replace(HERE, topic_ids={TOPIC: "new"}), "with id events id, which was deleted: the topic"),
        (
            0,
            99,
            fingerprint(CONFIG, EVENTS, KAFKA.model_copy(update={"events_topic": "e"}), 1),
            HERE,
            'kafka.events_topic was "ousel.events" and is "e"',
        ),
    ],
)
def test_a_start_that_would_lose_what_a_snapshot_holds_is_refused_and_says_what(
    tmp_path, caplog, begin, end, settings, identity, reason
):
    at(tmp_path, HERE).write(state_of(20))
    before = names(tmp_path)
    with pytest.raises(SnapshotError) as refused:
        started(at(tmp_path, identity, settings), begin, end)
    line = str(refused.value)
    assert "\n" not in line
    assert "4 users, 20 events" in line
    assert reason in line
    assert str(tmp_path / "a-000000000001") in line
    assert "snapshot.on_mismatch" in line
    assert names(tmp_path) == before
    # With permission it begins with the log, says what was lost, and never deletes what it skipped.
    writer = at(tmp_path, identity, settings)
    state = started(writer, begin, end, may_lose=True)
    assert state.positions[TOPIC, 0] == begin
    assert any("lost" in line and reason in line for line in warnings(caplog))
    for _ in range(4):
        writer.write(saved(state))
    assert names(tmp_path) == {"a-000000000001", "a-000000000005"}
    again = at(tmp_path, identity, settings)  # nor does the run after the next start
    state = started(again, begin, end)
    for _ in range(4):
        again.write(saved(state))
    assert names(tmp_path) == {"a-000000000001", "a-000000000009"}
    # Once it can be used again, it is used: it holds more of the past than those that came after it.
    caplog.clear()
    assert started(at(tmp_path, HERE), 0, 99).events_folded == 20


@pytest.mark.parametrize("damaged", ["manifest.json", "slice-0.tables"])
def test_a_damaged_snapshot_is_a_loss_only_where_neither_an_older_one_nor_the_log_has_its_past(tmp_path, damaged):
    writer = store(tmp_path)
    writer.write(state_of(20))
    newest = writer.write(state_of(30))
    flip(newest / damaged)
    assert started(store(tmp_path), 10, 99).events_folded == 20  # the older one, which the log continues
    assert started(store(tmp_path), 0, 99).events_folded == 20
    with pytest.raises(SnapshotError, match="the start is refused"):
        started(store(tmp_path), 25, 99)


def test_what_the_whole_log_tells_again_is_not_lost(tmp_path):
    store(tmp_path).write(state_of(20))
    state = started(store(tmp_path, settings=FEWER_KINDS), 0, 99)
    assert state.positions[TOPIC, 0] == 0


def test_a_slice_that_began_where_the_log_begins_still_is_not_lost(tmp_path):
    snapshot = state_of(20)
    began = replace(snapshot.slices[0], began=7)
    store(tmp_path).write(replace(snapshot, slices={0: began}))
    assert started(store(tmp_path, settings=FEWER_KINDS), 7, 99).positions[TOPIC, 0] == 7
    with pytest.raises(SnapshotError):
        started(store(tmp_path, settings=FEWER_KINDS), 8, 99)


def test_an_empty_snapshot_is_no_loss(tmp_path):
    store(tmp_path).write(replace(state_of(0), catalog=replace(state_of(0).catalog, items=())))
    assert started(store(tmp_path, settings=FEWER_KINDS), 5, 99).positions[TOPIC, 0] == 5


def test_a_catalog_of_another_topic_is_a_loss(tmp_path, caplog):
    at(tmp_path, HERE).write(state_of(20))
    other = replace(HERE, topic_ids={ITEMS: "made anew"})
    with pytest.raises(SnapshotError, match=r"3 catalog records.*'ousel.items' with id items id"):
        started(at(tmp_path, other), 0, 99)
    writer = at(tmp_path, other)
    state = started(writer, 0, 99, may_lose=True)
    assert state.events_folded == 20
    for _ in range(3):
        writer.write(saved(state))
    assert "a-000000000001" in names(tmp_path)  # it alone has the records


def test_a_catalog_whose_retention_has_passed_it_is_a_loss(tmp_path):
    store(tmp_path).write(state_of(20))
    with pytest.raises(SnapshotError, match=r"3 catalog records.*position 3 lies below the log's begin 4"):
        started(store(tmp_path), 0, 99, items=LogRange(4, 9))


def test_a_snapshot_that_names_no_log_is_of_any(tmp_path, caplog):
    path = at(tmp_path, LogIdentity()).write(state_of(20))
    assert started(at(tmp_path, HERE), 0, 99).events_folded == 20
    rewrite_manifest(path, log={"cluster_id": None})
    assert started(at(tmp_path, HERE), 0, 99).events_folded == 20
    assert started(at(tmp_path, LogIdentity()), 0, 99).events_folded == 20
    assert not warnings(caplog)


def test_the_manifest_names_the_log(tmp_path):
    path = at(tmp_path, HERE).write(state_of(20))
    assert json.loads((path / "manifest.json").read_text())["log"] == {
        "cluster_id": "cluster",
        "topic_ids": {TOPIC: "events id", ITEMS: "items id"},
    }


def test_an_engine_that_serves_goes_on_with_what_it_has(tmp_path, caplog):
    """Whoever is not ready yet may be refused; a rebalance of the group must not end one engine after another."""
    store(tmp_path).write(state_of(20))
    assert started(store(tmp_path), 25, 99, may_lose=True).positions[TOPIC, 0] == 25
    assert any("kept on disk: partition 0" in line for line in warnings(caplog))


def test_users_whose_key_moves_to_an_added_partition_keep_their_past(tmp_path):
    settings = fingerprint(CONFIG, EVENTS, KAFKA, 1)
    store(tmp_path, settings=settings).write(state_of(20))
    more = store(tmp_path, settings=fingerprint(CONFIG.model_copy(update={"max_users": 16}), EVENTS, KAFKA, 4))
    state = State(CONFIG.model_copy(update={"max_users": 16}), EVENTS, partitions=4)
    log = {(TOPIC, at): LogRange(0, 20 if at == 0 else 0) for at in range(4)} | {(ITEMS, 0): LogRange(0, 9)}
    take(Assignment(log, {TOPIC: 4, ITEMS: 1}), state, more, may_lose=False)
    subject = next(name for name in state.slices[0].slice.users.ids() if name and not name.startswith("\x00"))
    (row,) = state.find_users([subject])
    before = state.histories([row]).mask.sum()
    state.fold(batch([Line(subject, "", "new", 0, 1_800_000_000_000, partition=3, event_id="new")]))
    (row,) = state.find_users([subject])
    history = state.histories([row])
    assert history.mask.sum() == before + 1
    assert state.items.id_of(int(history.row[0, -1])) == "new"
