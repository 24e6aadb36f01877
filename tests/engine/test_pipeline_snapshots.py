"""The engine's thread where partitions come from a snapshot, or leave while one is written."""

from __future__ import annotations

import threading

import numpy as np
import torch

from engine.config import Config, SnapshotConfig
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import MemorySource
from engine.generation import Frozen, Generation, build_generation
from engine.pipeline import Pipeline
from engine.state.copying import SavedState, StateCopy
from engine.state.state import State
from tests.engine.models import small_weights
from tests.engine.records import event_record, item_record
from tests.engine.test_pipeline import Streams
from tests.engine.test_pipeline_assignments import DEADLINE_S, stepped_until
from tests.engine.worlds import ITEMS, small_config

CONFIG = Config(**dict(small_config()) | {"snapshot": SnapshotConfig(dir="unused")})
TOPIC = CONFIG.kafka.events_topic


def events(partition: int, users: list[str], items: list[str]) -> list:
    """Every user's events with all of the items, in turn."""
    pairs = [(user, item) for item in items for user in users]
    return [
        event_record(CONFIG, partition, at, user_id=user, item_id=item, event_id=f"{user} {item}", time_ms=at)
        for at, (user, item) in enumerate(pairs)
    ]


class Held:
    """Holds one snapshot; where it is `slow`, writing it lasts until it is told to `end`."""

    def __init__(self, saved: SavedState | None = None, *, slow: bool = False) -> None:
        self.saved = saved
        self.begun, self.end = threading.Event(), threading.Event()
        if not slow:
            self.end.set()

    def newest(self, partition, log):
        return self.saved.slices.get(partition) if self.saved else None

    def lost(self, partition, log):
        return None

    def lost_catalog(self, log):
        return None

    def newest_catalog(self, log):
        return self.saved.catalog if self.saved else None

    def write(self, saved: SavedState) -> None:
        self.begun.set()
        assert self.end.wait(DEADLINE_S)
        self.saved = saved


def test_the_positions_of_partitions_that_left_while_a_snapshot_was_written_are_not_committed():
    source = MemorySource([events(0, ["ann"], ITEMS[:3]), events(1, ["bob"], ITEMS[:2])])
    held = Held(slow=True)
    pipeline = Pipeline(CONFIG, Streams(), lambda partitions: held)
    stepped_until(pipeline, source, source.caught_up)
    answer = pipeline.snapshot()
    stepped_until(pipeline, source, held.begun.is_set)
    source.reassign([(TOPIC, 0)])
    stepped_until(pipeline, source, lambda: list(pipeline.state.slices) == [0])
    assert source.committed == {}
    held.end.set()
    stepped_until(pipeline, source, answer.done)
    assert answer.result(0) == {(TOPIC, 0): 3, (TOPIC, 1): 2}
    assert source.committed == {(TOPIC, 0): 3}
    pipeline.close()


def built(state: State) -> Generation:
    return build_generation(small_weights(ITEMS), 1, {}, Frozen.of(state), CONFIG)


def assert_as_built_now(generation: Generation, state: State) -> None:
    """Every vector of a user or item, and what the index finds, is what a build over this state would give."""
    fresh = built(state)
    users = state.users()
    torch.testing.assert_close(generation.embedder.users[users], fresh.embedder.users[users], atol=1e-5, rtol=0)
    at = np.arange(len(state.items))
    live = at[~state.catalog.deleted(at)]
    torch.testing.assert_close(generation.embedder.items[live], fresh.embedder.items[live], atol=1e-5, rtol=0)
    query = fresh.embedder.items[live[:1]].numpy()
    found, wanted = (one.index.search(query, len(live)) for one in (generation, fresh))
    assert sorted(found.row[0].tolist()) == sorted(wanted.row[0].tolist()) == live.tolist()
    assert np.allclose(found.score, wanted.score, atol=1e-5)


def test_the_vectors_of_what_comes_with_a_partition_or_leaves_with_it_are_brought_up_to_date():
    catalog = [item_record(CONFIG, at, item, title=f"Title of {item}") for at, item in enumerate(ITEMS[:4])]
    # Some items are known to both partitions, some to one, and the last of each to no catalog.
    log = [catalog, events(0, ["ann", "abe"], [*ITEMS[:3], "only 0"]), events(1, ["bob"], [*ITEMS[2:5], "only 1"])]
    parts = [(CONFIG.kafka.items_topic, 0), (TOPIC, 0), (TOPIC, 1)]
    letters = MemoryDeadLetters()

    before, source = Pipeline(CONFIG, Streams(), lambda partitions: Held()), MemorySource(log)
    stepped_until(before, source, source.caught_up)
    copy = StateCopy(before.state, 2**30)
    while not copy.step():
        pass

    source = MemorySource(log)
    source.reassign(parts[:2])
    pipeline = Pipeline(CONFIG, Streams(), lambda partitions: Held(copy.saved()))
    stepped_until(pipeline, source, source.caught_up, letters)
    pipeline.generations.serving = built(pipeline.state)
    alone = pipeline.generation.embedder.items.clone()
    folded = pipeline.state.events_folded
    for read in (parts, [parts[0], parts[2]]):
        source.reassign(read)
        source.wake()
        pipeline.step(source, letters)
        assert source.caught_up()  # all of it is in the snapshot, and no event has to be folded
        while pipeline.generation.embedder.backlog:
            source.wake()
            pipeline.step(source, letters)
        assert_as_built_now(pipeline.generation, pipeline.state)
        assert not torch.equal(pipeline.generation.embedder.items, alone)
    assert pipeline.state.items.get("only 0") is None
    assert pipeline.state.items.get("only 1") is not None
    assert pipeline.state.events_folded == 4 < folded
    pipeline.close()
    before.close()
