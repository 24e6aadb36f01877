"""The engine's thread while partitions come and go, before any has come, and when it ends early."""

from __future__ import annotations

import threading
import time

import pytest

from engine import metrics
from engine.config import Config, SnapshotConfig
from engine.events.batch import Record
from engine.events.dead_letter import LettersUnwritten, MemoryDeadLetters
from engine.events.source import MemorySource
from engine.model.weights import encode_weights
from engine.pipeline import NotFollowing, Pipeline
from tests.engine.models import small_weights
from tests.engine.records import event_record
from tests.engine.test_pipeline import Streams
from tests.engine.worlds import ITEMS, small_config

CONFIG = small_config()
TOPIC = CONFIG.kafka.events_topic
DEADLINE_S = 30.0


def events(partition: int, user_id: str, count: int) -> list[Record]:
    return [
        event_record(CONFIG, partition, at, user_id=user_id, item_id=ITEMS[at], event_id=f"{user_id}{at}", time_ms=at)
        for at in range(count)
    ]


def stepped_until(pipeline: Pipeline, source: MemorySource, true, letters=None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        source.wake()
        pipeline.step(source, letters or MemoryDeadLetters())


def freshness_count() -> float:
    return next(
        sample.value
        for metric in metrics.FRESHNESS_SECONDS.collect()
        for sample in metric.samples
        if sample.name.endswith("_count")
    )


def test_partitions_that_come_later_are_replayed_as_the_past_while_the_engine_stays_ready():
    source = MemorySource([events(0, "ann", 3), events(1, "bob", 2), events(1, "bob", 4)[2:]])
    source.reassign([(TOPIC, 0)])
    streams, ready, stop = Streams("bob"), threading.Event(), threading.Event()
    pipeline = Pipeline(CONFIG, streams, on_ready=ready.set)
    thread = threading.Thread(target=pipeline.run, args=(source, MemoryDeadLetters(), stop), daemon=True)
    thread.start()
    assert ready.wait(DEADLINE_S)
    assert pipeline.status().caught_up
    before = freshness_count()

    source.stall()
    source.reassign([(TOPIC, 0), (TOPIC, 1)])
    deadline = time.monotonic() + DEADLINE_S
    while len(pipeline.status().partitions) < 2:
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)
    assert pipeline.status().ready
    assert not pipeline.status().caught_up
    source.stall(False)
    while not pipeline.status().caught_up:
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)
    assert pipeline.errands.submit(lambda: None).result(DEADLINE_S) is None
    assert freshness_count() == before  # what is replayed was made long ago

    source.append([event_record(CONFIG, 1, 4, user_id="bob", item_id=ITEMS[7], event_id="new", time_ms=9)])
    while freshness_count() == before:
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)
    stop.set()
    pipeline.wake()
    thread.join(DEADLINE_S)
    pipeline.close()


def test_a_model_pushed_before_any_partition_has_come_fits_the_state_that_there_is_then():
    source = MemorySource([events(partition, f"u{partition}", 3) for partition in range(3)])
    source.reassign(None)
    pipeline = Pipeline(CONFIG, Streams())
    installed = pipeline.install(encode_weights(small_weights(ITEMS)), 1, {})
    for _ in range(20):
        source.wake()
        pipeline.step(source, MemoryDeadLetters())
    assert not installed.done()
    source.reassign([(TOPIC, partition) for partition in range(3)])
    stepped_until(pipeline, source, lambda: installed.done() and source.caught_up())
    assert installed.exception() is None
    assert len(pipeline.generation.embedder.users) == pipeline.state.user_rows
    assert len(pipeline.generation.embedder.items) == pipeline.state.item_rows
    pipeline.close()


def test_an_engine_that_ends_leaves_nobody_waiting():
    source = MemorySource([])
    source.reassign(None)
    config = CONFIG.model_copy(update={"snapshot": SnapshotConfig(dir="unused")})
    pipeline = Pipeline(config, Streams(), lambda partitions: pytest.fail("nothing is read"))
    installed, digest = pipeline.install(encode_weights(small_weights(ITEMS)), 1, {}), pipeline.digest()
    snapshot = pipeline.snapshot()
    source.wake()
    pipeline.step(source, MemoryDeadLetters())
    assert isinstance(snapshot.exception(0), NotFollowing)  # there is nothing to take one of
    pipeline.close()
    assert isinstance(installed.exception(0), NotFollowing)
    assert isinstance(digest.exception(0), NotFollowing)


class Unanswered(MemoryDeadLetters):
    """A topic whose broker does not acknowledge yet."""

    def __init__(self) -> None:
        super().__init__()
        self.acknowledged = threading.Event()
        self.asked = threading.Event()

    def settle(self) -> None:
        self.asked.set()
        assert self.acknowledged.wait(DEADLINE_S)


class Snapshots:
    def __init__(self) -> None:
        self.saved: list = []

    def newest(self, partition, log):
        return None

    def lost(self, partition, log):
        return None

    def lost_catalog(self, log):
        return None

    def newest_catalog(self, log):
        return None

    def write(self, saved) -> None:
        self.saved.append(saved)


def test_a_snapshot_is_written_only_once_no_dead_letter_is_on_its_way():
    config = Config(**dict(CONFIG) | {"snapshot": SnapshotConfig(dir="unused", interval_s=1e-9)})
    good, bad = events(0, "ann", 2)
    source = MemorySource([[good, bad._replace(value=b"\xff")]])
    snapshots, letters = Snapshots(), Unanswered()
    pipeline = Pipeline(config, Streams(), lambda partitions: snapshots)
    stepped_until(pipeline, source, letters.asked.is_set, letters)
    assert len(letters.rejections) == 1
    assert snapshots.saved == []
    assert source.committed == {}
    letters.acknowledged.set()
    stepped_until(pipeline, source, lambda: source.committed, letters)
    assert snapshots.saved[0].positions == source.committed == {(TOPIC, 0): 2}
    pipeline.close()


class Refusing(MemoryDeadLetters):
    """A topic that takes no letters until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = False
        self.asked = 0

    def settle(self) -> None:
        self.asked += 1
        if not self.takes:
            raise LettersUnwritten("1 dead letters can't be written")


def test_while_the_topic_refuses_letters_events_are_folded_and_no_snapshot_and_no_position_passes_them(caplog):
    config = Config(**dict(CONFIG) | {"snapshot": SnapshotConfig(dir="unused", interval_s=1e-9)})
    bad, *good = events(0, "ann", len(ITEMS))
    source = MemorySource([[bad._replace(value=b"\xff")], *([record] for record in good)])
    snapshots, letters = Snapshots(), Refusing()
    pipeline = Pipeline(config, Streams(), lambda partitions: snapshots)
    stepped_until(pipeline, source, lambda: source.caught_up() and letters.asked > 3, letters)
    assert pipeline.state.events_folded == len(good)
    assert (snapshots.saved, source.committed) == ([], {})
    asked = pipeline.snapshot()
    stepped_until(pipeline, source, asked.done, letters)
    assert isinstance(asked.exception(0), LettersUnwritten)
    assert "the snapshot failed, the one before it still counts: 1 dead letters can't be written" in caplog.text
    letters.takes = True
    stepped_until(pipeline, source, lambda: source.committed, letters)
    assert snapshots.saved[0].positions == source.committed == {(TOPIC, 0): len(ITEMS)}
    pipeline.close()


def test_a_snapshot_that_waits_for_the_next_is_answered_when_the_engine_ends():
    config = Config(**dict(CONFIG) | {"snapshot": SnapshotConfig(dir="unused")})
    source = MemorySource([events(0, "ann", 2)])
    pipeline = Pipeline(config, Streams(), lambda partitions: Snapshots())
    source.wake()
    pipeline.step(source, MemoryDeadLetters())
    answer = pipeline.snapshot()
    pipeline.close()
    assert isinstance(answer.exception(0), NotFollowing)
