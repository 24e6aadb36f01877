"""Records that a full catalog has dropped come back once events name their items, before the engine is ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest

from engine import metrics
from engine.catalog_recall import Newest
from engine.config import Config
from engine.events.batch import CatalogItem, Flaw, QuotedTombstone, Record
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import MemorySource, Partition, SourceError
from engine.pipeline import Pipeline
from tests.engine.records import event_record, item_record
from tests.engine.test_pipeline import Streams
from tests.engine.test_pipeline_assignments import DEADLINE_S
from tests.engine.worlds import small_config

BASE = small_config()
CONFIG = BASE.model_copy(update={"state": BASE.state.model_copy(update={"max_items": 3})})
TOPIC, ITEMS_TOPIC = CONFIG.kafka.events_topic, CONFIG.kafka.items_topic


def item(offset: int, name: str, **fields: str | bool) -> Record:
    return item_record(CONFIG, offset, name, **({"title": f"Title {name}"} | fields))


def event(offset: int, name: str) -> Record:
    return event_record(CONFIG, 0, offset, user_id="ann", item_id=name, event_id=f"e{offset}", time_ms=offset)


# "used" and "gone" are the first of many, so that a catalog of three items has dropped both when events name them.
CATALOG = [item(0, "used"), item(1, "gone"), item(2, "gone", deleted=True)]
CATALOG += [item(at, f"invented-{at}") for at in range(3, 20)]
EVENTS = [event(0, "used"), event(1, "gone")]


class Log:
    """A log in memory, and how often its items topic was read again."""

    def __init__(self, config: Config, *batches: Sequence[Record]) -> None:
        self.source = MemorySource(batches, items_topic=ITEMS_TOPIC)
        self.batches = list(batches)
        self.reads = 0
        self.failures = 0
        self.going_on = threading.Event()
        self.going_on.set()
        self.ready = threading.Event()
        self.pipeline = Pipeline(config, Streams(), on_ready=self.ready.set, read_items=self.read)

    def read(self, ends: Mapping[Partition, int]) -> Iterator[Sequence[Record]]:
        self.reads += 1
        assert self.going_on.wait(DEADLINE_S)
        if self.failures:
            self.failures -= 1
            raise SourceError("no broker answers")
        yield [record for batch in self.batches for record in batch if record.topic == ITEMS_TOPIC]

    def append(self, batch: Sequence[Record]) -> None:
        self.batches.append(batch)
        self.source.append(batch)

    def title(self, name: str) -> str:
        """ "" as well while the engine's thread is about to take the item in."""
        row, titles = self.pipeline.state.items.get(name), self.pipeline.state.catalog.title
        return "" if row is None or row >= len(titles) else titles[row]

    def shows(self, name: str) -> bool:
        row = self.pipeline.state.items.get(name)
        return row is not None and row in self.pipeline.state.popularity.top().tolist()


@pytest.fixture
def opened() -> Iterator[list[Log]]:
    logs: list[Log] = []
    yield logs
    for log in logs:
        log.going_on.set()
        log.pipeline.close()


class Running:
    """Runs the engine's thread while it is entered."""

    def __init__(self, log: Log) -> None:
        self._log, self._stop = log, threading.Event()
        args = (log.source, MemoryDeadLetters(), self._stop)
        self._thread = threading.Thread(target=log.pipeline.run, args=args, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._log.pipeline.wake()
        self._thread.join(DEADLINE_S)


def until(true) -> None:
    deadline, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while not true():
        assert time.monotonic() < deadline
        pause.wait(0.002)


def log_of(opened: list[Log], *batches: Sequence[Record], recall_s: float = 3600.0) -> Log:
    state = CONFIG.state.model_copy(update={"catalog_recall_s": recall_s})
    opened.append(Log(CONFIG.model_copy(update={"state": state}), *batches))
    return opened[-1]


def test_a_start_has_titles_and_deletions_of_all_used_items_before_it_is_ready_however_full_the_catalog_is(opened):
    log, before = log_of(opened, CATALOG, EVENTS), metrics.CATALOG_RECALLED._value.get()
    log.going_on.clear()
    with Running(log):
        until(lambda: log.reads == 1)
        assert not log.ready.is_set() and log.title("used") == ""
        log.going_on.set()
        assert log.ready.wait(DEADLINE_S)
    assert log.title("used") == "Title used" and log.shows("used")
    assert not log.shows("gone")
    assert metrics.CATALOG_RECALLED._value.get() == before + 2


def test_an_item_that_is_used_later_gets_its_title_while_the_engine_serves(opened):
    log = log_of(opened, CATALOG, EVENTS, recall_s=1e-9)
    with Running(log):
        assert log.ready.wait(DEADLINE_S)
        log.append([event(2, "invented-5")])
        until(lambda: log.title("invented-5"))
        # A newer record that comes now counts, whatever the search has read.
        log.append([item(20, "used", title="New")])
        until(lambda: log.title("used") == "New")
    assert log.title("invented-5") == "Title invented-5"


def test_the_topic_is_not_read_again_before_its_time_nor_where_nothing_is_missing(opened):
    log = log_of(opened, CATALOG, EVENTS)
    with Running(log):
        assert log.ready.wait(DEADLINE_S)
        log.append([event(2, "invented-5")])
        until(lambda: log.pipeline.state.records.wanted == 1)
    assert log.reads == 1 and log.title("invented-5") == ""
    whole = log_of(opened, CATALOG[:2], EVENTS, [event(2, "unknown")], recall_s=1e-9)
    with Running(whole):
        assert whole.ready.wait(DEADLINE_S)
    assert whole.reads == 0


def test_records_are_taken_in_by_and_by_so_that_no_call_waits_for_all_of_them(opened, monkeypatch):
    monkeypatch.setattr("engine.catalog_recall._AT_ONCE", 1)
    log = log_of(opened, CATALOG, EVENTS)
    letters, shown = MemoryDeadLetters(), []
    deadline = time.monotonic() + DEADLINE_S
    while not shown or shown[-1] < 2:
        assert time.monotonic() < deadline
        log.source.wake()
        log.pipeline.step(log.source, letters)
        shown.append(
            sum(row in log.pipeline.state.catalog for row in log.pipeline.state.items.find(["used", "gone"]).tolist())
        )
    assert 1 in shown and log.pipeline._recall.settled(log.pipeline.state)
    assert log.pipeline.state.records.wanted == 0 and not log.pipeline.state.records._sought


def test_a_topic_that_cannot_be_read_keeps_no_engine_from_serving_and_is_read_later(opened, caplog):
    log = log_of(opened, CATALOG, EVENTS)
    log.failures = 1
    with Running(log):
        assert log.ready.wait(DEADLINE_S)
        assert log.title("used") == "" and log.pipeline.state.records.wanted == 2
    assert "no broker answers" in caplog.text and "next try in 3600 s" in caplog.text
    again = log_of(opened, CATALOG, EVENTS, recall_s=1e-9)
    again.failures = 3
    with Running(again):
        # The title is there for a moment before, until the catalog is full.
        until(lambda: again.reads == 4 and again.title("used"))


def test_a_stop_does_not_wait_for_the_whole_topic(opened):
    log = log_of(opened, CATALOG, EVENTS)
    read = []

    def endless(ends: Mapping[Partition, int]) -> Iterable[Sequence[Record]]:
        while True:
            read.append(ends)
            yield []

    log.pipeline._recall._read = endless
    with Running(log):
        until(lambda: read)
    log.pipeline.close()
    thread = log.pipeline._recall._thread
    assert thread is not None and not thread.is_alive()
    assert read[0] == {(ITEMS_TOPIC, 0): 20}


NAMES = frozenset("ab")


def newest(*records: Record, end: int = 100) -> dict[str, tuple[str, bool]]:
    found = Newest(CONFIG, NAMES, {(ITEMS_TOPIC, 0): end})
    found.note(records)
    return {name: (one.title, one.deleted) for name, one in found.found().items()}


def test_of_several_records_the_newest_counts_and_those_that_are_not_folded_yet_do_not():
    records = [item(0, "a"), item(1, "b"), item(2, "c"), item(3, "a", title="New"), item(4, "b", title="Later")]
    assert newest(*records) == {"a": ("New", False), "b": ("Later", False)}
    assert newest(*records, end=4) == {"a": ("New", False), "b": ("Title b", False)}
    assert newest(*records, Record(ITEMS_TOPIC, 0, 5, 0, b"a", None))["a"] == ("", True)


def test_dead_letters_and_damaged_stretches_say_nothing_of_an_item():
    bad = item(1, "a")._replace(value=b"\xff\xff")
    flaw = Record(ITEMS_TOPIC, 0, 2, 0, b"a", None, Flaw(2, 1, "damaged"))
    assert newest(item(0, "a"), bad, flaw) == {"a": ("Title a", False)}


def test_a_tombstone_with_a_quoted_key_deletes_the_item_of_that_literal_id_where_it_has_had_a_record():
    assert newest(item(0, "a"), Record(ITEMS_TOPIC, 0, 1, 0, b'"a"', None)) == {"a": ("", True)}
    literal = item(1, '"a"')
    assert newest(item(0, "a"), literal, Record(ITEMS_TOPIC, 0, 2, 0, b'"a"', None)) == {"a": ("Title a", False)}


def test_what_a_search_finds_stays_within_the_memory_of_the_catalog():
    state = CONFIG.state.model_copy(update={"max_catalog_bytes": 2**20})
    found = Newest(CONFIG.model_copy(update={"state": state}), frozenset(f"i{at}" for at in range(100)), {})
    for at in range(100):
        found.note_item(CatalogItem(f"i{at}", "x" * 20_000, offset=at))
    assert 20 < len(found.found()) < 27 and "i99" in found.found()
    found.note_item(QuotedTombstone('"i99"', deleted=True, named_id="i99", offset=100))
    assert found.found()["i99"].deleted
