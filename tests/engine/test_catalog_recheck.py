"""After a restore the catalog equals what its topic says, also where the topic no longer says what was deleted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest
from ousel.v1 import catalog_pb2

from engine.catalog_recheck import may_miss_deletions
from engine.config import Config, SnapshotConfig
from engine.events.batch import Flaw, Record
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import Assignment, LogRange, MemorySource
from engine.pipeline import Pipeline
from engine.ranking.query import Query
from engine.state.copying import SavedState, StateCopy
from engine.state.digest import catalog_digest
from tests.engine.records import event_record, item_record
from tests.engine.test_pipeline import Streams
from tests.engine.test_pipeline_assignments import stepped_until
from tests.engine.test_pipeline_snapshots import Held
from tests.engine.worlds import small_config

CONFIG = Config(**dict(small_config()) | {"snapshot": SnapshotConfig(dir="unused")})
TOPIC, ITEMS_TOPIC = CONFIG.kafka.events_topic, CONFIG.kafka.items_topic
NAMES = ["a", "b", "c", "d"]
AT = (ITEMS_TOPIC, 0)


def item(offset: int, name: str, **fields: str | bool) -> Record:
    return item_record(CONFIG, offset, name, **({"title": f"Title {name}"} | fields))


def tombstone(offset: int, name: str) -> Record:
    return Record(ITEMS_TOPIC, 0, offset, 0, name.encode(), None)


CATALOG = [item(at, name) for at, name in enumerate(NAMES)]
# Everything is bought, b most of all.
EVENTS = [
    event_record(
        CONFIG, 0, at, user_id=f"u{at}", item_id="b" if at % 2 else NAMES[at % 4], event_id=f"e{at}", time_ms=at
    )
    for at in range(12)
]


def saved(*records: Record) -> SavedState:
    """What an engine that has folded these would save."""
    source = MemorySource([records], items_topic=ITEMS_TOPIC)
    pipeline = Pipeline(CONFIG, Streams(), lambda assignment: Held())
    stepped_until(pipeline, source, source.caught_up)
    copy = StateCopy(pipeline.state, 2**30)
    while not copy.step():
        pass
    pipeline.close()
    return copy.saved()


class Restarted:
    """An engine that starts with a snapshot, over the log as it is by then."""

    def __init__(self, snapshot: SavedState, log: Sequence[Sequence[Record]], config: Config = CONFIG) -> None:
        self.held = Held(snapshot)
        self.source = MemorySource(log, items_topic=ITEMS_TOPIC)
        self.letters = MemoryDeadLetters()
        self.pipeline = Pipeline(config, Streams(), lambda assignment: self.held)

    def step(self) -> None:
        self.source.wake()
        self.pipeline.step(self.source, self.letters)

    def ready(self) -> Restarted:
        stepped_until(
            self.pipeline,
            self.source,
            lambda: self.source.caught_up() and self.pipeline._recheck is None,
            self.letters,
        )
        return self

    def shown(self) -> Collection[str]:
        """What a list of everything has."""
        answer = self.pipeline.ask(Query(user_id="new", session_id="", k=50))
        while not answer.done():
            self.step()
        return {one.item_id for one in answer.result().items}

    def titles(self) -> dict[str, str]:
        return {one.item_id: one.title for one in self.pipeline.state.catalog.records() if not one.deleted}


def test_an_item_whose_tombstone_was_compacted_away_is_deleted_and_events_know_it_still():
    # Since the snapshot b was deleted, and its record and its tombstone have left the topic; e came.
    log = [[*CATALOG[:1], *CATALOG[2:], item(6, "e")], EVENTS]
    engine = Restarted(saved(*CATALOG, *EVENTS), log)
    engine.step()
    assert not engine.pipeline.status().ready
    engine.ready()
    assert engine.titles() == {name: f"Title {name}" for name in "acde"}
    assert engine.shown() == set("acde")
    assert engine.pipeline.state.items.get("b") is not None
    status = engine.pipeline.status()
    assert (status.items_folded, status.records_redelivered) == (5, 3)
    assert engine.letters.rejections == []


def test_without_a_record_since_the_snapshot_the_topic_is_not_read_again():
    engine = Restarted(saved(*CATALOG, *EVENTS), [[*CATALOG], EVENTS])
    engine.step()
    assert engine.pipeline._recheck is None
    engine.ready()
    assert engine.shown() == set(NAMES)


def test_what_was_changed_or_deleted_since_the_snapshot_is_so_whatever_compaction_has_left():
    log = [[CATALOG[0], item(5, "c", title="New"), tombstone(6, "d"), item(7, "b", title="Again")], EVENTS]
    engine = Restarted(saved(*CATALOG, *EVENTS), log).ready()
    assert engine.titles() == {"a": "Title a", "b": "Again", "c": "New"}
    assert engine.shown() == {"a", "b", "c"}


def test_an_item_that_was_deleted_before_the_snapshot_stays_so_without_its_tombstone():
    snapshot = saved(*CATALOG, tombstone(4, "b"), *EVENTS)
    engine = Restarted(snapshot, [[CATALOG[0], *CATALOG[2:], item(7, "e")], EVENTS]).ready()
    assert engine.shown() == set("acde")


def test_records_that_were_dead_letters_are_none_again_and_delete_nothing():
    bad = item(4, "b", title="\x07")._replace(value=b"\xff\xff")
    engine = Restarted(saved(*CATALOG, bad, *EVENTS), [[CATALOG[0], *CATALOG[2:], bad, item(9, "e")], EVENTS]).ready()
    assert engine.letters.rejections == []
    assert engine.shown() == set("abcde")
    later = Restarted(saved(*CATALOG, *EVENTS), [[CATALOG[0], *CATALOG[2:], bad], EVENTS]).ready()
    assert len(later.letters.rejections) == 1
    assert later.shown() == set(NAMES)


def test_where_a_part_of_the_topic_cannot_be_read_nothing_is_deleted_and_that_is_said(caplog):
    damaged = Record(ITEMS_TOPIC, 0, 1, 0, None, None, Flaw(1, 1, "damaged"))
    engine = Restarted(saved(*CATALOG, *EVENTS), [[CATALOG[0], damaged, *CATALOG[2:], item(6, "e")], EVENTS]).ready()
    assert engine.shown() == set("abcde")
    assert "can't be read whole" in caplog.text


def test_no_snapshot_is_taken_before_the_catalog_was_held_against_its_topic():
    log = [[CATALOG[0]], [*CATALOG[2:]], [item(6, "e")], EVENTS]
    snapshot = saved(*CATALOG, *EVENTS[:5])
    engine = Restarted(snapshot, log, CONFIG.model_copy(update={"snapshot": SnapshotConfig(dir="x", interval_s=1e-9)}))
    while engine.pipeline._recheck is not None or engine.held.saved is snapshot:
        if engine.pipeline._recheck is not None:
            assert engine.held.saved is snapshot
        engine.step()
    deleted = {one.item_id for one in engine.held.saved.catalog.items if one.deleted}
    assert deleted == {"b"}
    engine.pipeline.close()


def test_a_new_assignment_in_between_begins_the_check_anew():
    log = [[CATALOG[0]], [*CATALOG[2:]], [item(6, "e")], EVENTS]
    engine = Restarted(saved(*CATALOG, *EVENTS), log)
    engine.step()
    engine.step()
    engine.source.reassign([AT, (TOPIC, 0)])
    assert engine.ready().shown() == set("acde")


def without_attributes(snapshot: SavedState) -> SavedState:
    """A snapshot as a version of Ousel that dropped attributes would have taken it."""
    items = [replace(one, attributes=()) for one in snapshot.catalog.items]
    return replace(snapshot, catalog=replace(snapshot.catalog, items=items, has_attributes=False))


def test_attributes_that_an_older_version_dropped_are_read_from_the_topic_and_nothing_else_changes():
    def priced(offset: int, name: str, price: str) -> Record:
        record = catalog_pb2.Item(item_id=name, title=f"Title {name}", attributes={"price": price})
        return Record(ITEMS_TOPIC, 0, offset, 0, name.encode(), record.SerializeToString())

    # Not compacted yet: "a" has three records, the newest with a price; "b" has lost its price, and "d" is deleted.
    log = [priced(0, "a", "1"), priced(1, "b", "2"), item(2, "c"), priced(3, "d", "4"), item(4, "a"), item(5, "b")]
    log += [priced(6, "a", "7"), tombstone(7, "d")]
    snapshot = saved(*log, *EVENTS)
    want = catalog_digest(snapshot.catalog.items)
    assert catalog_digest(without_attributes(snapshot).catalog.items) != want
    for cut in (1, 3, 8):
        parts = [log[:cut], log[cut:]]
        engine = Restarted(without_attributes(snapshot), [*filter(None, parts), EVENTS])
        engine.step()
        assert not engine.pipeline.status().ready
        engine.ready()
        assert catalog_digest(engine.pipeline.state.catalog.records()) == want
    # Retention has shortened the topic: what it lacks is not deleted, and a snapshot with attributes is not in doubt.
    engine = Restarted(without_attributes(snapshot), [log[2:], EVENTS]).ready()
    assert engine.shown() == set("abc")
    engine = Restarted(snapshot, [log, EVENTS])
    engine.step()
    assert engine.pipeline._recheck is None


def test_a_catalog_whose_limit_was_raised_has_what_the_topic_has():
    small = CONFIG.model_copy(update={"state": CONFIG.state.model_copy(update={"max_items": 2})})
    source = MemorySource([CATALOG], items_topic=ITEMS_TOPIC)
    before = Pipeline(small, Streams(), lambda assignment: Held())
    stepped_until(before, source, source.caught_up)
    copy = StateCopy(before.state, 2**30)
    while not copy.step():
        pass
    snapshot = replace(copy.saved(), slices={})
    engine = Restarted(snapshot, [[*CATALOG, item(4, "e")]]).ready()
    assert engine.titles() == {name: f"Title {name}" for name in "abcde"}


@pytest.mark.parametrize(
    ("begin", "end", "shown_from", "missed"),
    [
        (0, 7, None, False),  # the end of a log never goes back: nothing came
        (0, 8, None, True),
        (3, 8, None, False),  # shortened by retention, as far as anybody knows
        (3, 8, 8, True),
        (0, 8, 0, False),  # not compacted
        (0, 9, 7, False),  # all that came since is young enough
        (0, 9, 8, True),
    ],
)
def test_the_topic_is_read_whole_where_a_tombstone_may_be_gone(begin, end, shown_from, missed):
    known = {} if shown_from is None else {AT: shown_from}
    assignment = Assignment({AT: LogRange(begin, end)}, {ITEMS_TOPIC: 1}, deletions_from=known)
    assert may_miss_deletions(assignment, {AT: 7}) is missed
