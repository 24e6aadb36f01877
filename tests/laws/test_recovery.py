"""Law 2: a snapshot and the log since then are the state of an engine that never stopped, wherever it is killed.

And what the group is told of is never ahead of a snapshot that is safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config, SnapshotConfig, StateConfig
from engine.events.batch import Record
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import LogRange, MemorySource
from engine.pipeline import Pipeline
from engine.state.copying import SavedCatalog, SavedState
from engine.state.digest import StateDigest
from engine.state.slice import SavedSlice
from tests.engine.logs import HOUR_MS
from tests.engine.records import event_record, item_record

CONFIG = Config(
    state=StateConfig(
        history=4,
        neighbors=3,
        relations=2,
        content_dim=8,
        max_users=12,
        max_items=8,
        max_targets=3,
        duplicates_window=4,
        catalog_recall_s=1e-9,
        half_lives_s=(3600, 60),
    ),
    # As soon as one has ended the next begins.
    snapshot=SnapshotConfig(interval_s=1e-9),
)
# A user may set the last only, but of so small a state that is nearly all, and events are to be folded between pieces.
PIECES_BYTES = [300, 1000, 4096]
PARTITIONS = 2


class Nobody:
    """An audience that never listens."""

    def mark(self, subjects, *, model):
        pass

    def mark_catalog(self, change):
        pass

    def due(self, limit, last):
        return ()

    def deliver(self, due, ranking):
        raise AssertionError("nobody asked")


class Kept:
    """Snapshots in memory; `fails` says of each write to come whether it fails, and no further one does."""

    def __init__(self, fails: Sequence[bool] = ()) -> None:
        self.saved: list[SavedState] = []
        self.fails = list(fails)

    def write(self, saved: SavedState) -> None:
        if self.fails and self.fails.pop(0):
            raise OSError("No space left on device")
        self.saved.append(saved)

    def newest(self, partition: int, log: LogRange) -> SavedSlice | None:
        slices = [saved.slices[partition] for saved in self.saved if partition in saved.slices]
        return max(slices, key=lambda one: one.numbers["position"], default=None)

    def lost(self, partition, log):
        return None

    def lost_catalog(self, log):
        return None

    def newest_catalog(self, log: Mapping) -> SavedCatalog | None:
        return self.saved[-1].catalog if self.saved else None


class Engine:
    """A pipeline over a log in memory, stepped by hand.

    Args:
        items_first: whether the catalog is read before the events, as at a start, or both as they come in the log.
    """

    def __init__(
        self,
        batches: list[list[Record]],
        kept: Kept,
        piece_bytes: int = PIECES_BYTES[-1],
        *,
        max_items: int = 8,
        items_first: bool = True,
    ) -> None:
        self.kept = kept
        topic = CONFIG.kafka.items_topic
        self.source = MemorySource(batches, items_topic=topic if items_first else None)
        self.letters = MemoryDeadLetters()
        snapshot = CONFIG.snapshot.model_copy(update={"piece_bytes": piece_bytes})
        state = CONFIG.state.model_copy(update={"max_items": max_items})
        config = CONFIG.model_copy(update={"snapshot": snapshot, "state": state})
        items = [record for batch in batches for record in batch if record.topic == topic]
        self.pipeline = Pipeline(config, Nobody(), lambda partitions: kept, read_items=lambda ends: [items])

    def step(self) -> None:
        self.source.wake()  # there is nothing to wait for where the log has ended
        self.pipeline.step(self.source, self.letters)
        safe = self.kept.saved[-1].positions if self.kept.saved else {}
        assert all(at <= safe.get(partition, 0) for partition, at in self.source.committed.items())

    def kill(self) -> None:
        # What is on its way to the disk may or may not arrive: here it does, so that the test repeats.
        self.pipeline.close()

    def stop(self) -> None:
        """Ends as it is asked to: with a snapshot of all that was folded."""
        stop = threading.Event()
        stop.set()
        self.pipeline.run(self.source, self.letters, stop)
        self.pipeline.close()

    def digest(self) -> StateDigest:
        """Of the state once the log is folded and the catalog has what it lacked."""
        self._step_until(lambda: self.source.caught_up() and self.pipeline._recall.settled(self.pipeline.state))
        answer = self.pipeline.digest()
        self._step_until(answer.done)
        return answer.result()

    def _step_until(self, true: Callable[[], bool]) -> None:
        pause = threading.Event()
        while not true():
            self.step()
            pause.wait(0.0001)


def an_event(user, session, item, kind, hour, event_id):
    ids = {"user_id": user, "session_id": session, "item_id": item, "event_id": event_id}
    return ids | {"kind": kind, "time_ms": hour * HOUR_MS}


def a_relation(user, target, item, ends, hour, event_id):
    """Of a user to a user or, where there is none, of an item to an entity."""
    ids = {"user_id": user, "target_user_id": target} if user else {"item_id": item, "entity_id": target}
    return ids | {"ends": ends, "time_ms": hour * HOUR_MS, "event_id": event_id}


events = st.lists(
    st.tuples(
        st.integers(0, PARTITIONS - 1),
        st.builds(
            a_relation,
            st.sampled_from(["", "ann", "bob"]),
            st.sampled_from(["cid", "dan", "Ford", "x"]),
            st.sampled_from(["v", "w", "x"]),
            st.sampled_from([False, False, True]),
            st.integers(0, 3000),
            st.sampled_from(["", "e1", "e4"]),
        )
        | st.builds(
            an_event,
            st.sampled_from(["", "ann", "bob", "cid", "dan", "eve"]),
            st.sampled_from(["s1", "s2"]),
            st.sampled_from(["v", "w", "x", "y", "z"]),
            st.sampled_from(["view", "purchase", "nonsense"]),  # one of them is no kind: a dead letter
            st.integers(0, 3000),
            st.sampled_from(["", "e1", "e2", "e3"]),
        ),
    ),
    max_size=40,
)
items = st.lists(st.tuples(st.sampled_from("vwxyz"), st.sampled_from(["milk", "bread"]), st.booleans()), max_size=6)


def log_of(events, items, lengths) -> list[list[Record]]:
    """Batches of these lengths; a record of the catalog comes after every third event, and the rest at the end."""
    offsets = [0] * PARTITIONS
    titles = [
        item_record(CONFIG, at, name, title=title, deleted=deleted) for at, (name, title, deleted) in enumerate(items)
    ]
    records = []
    for at, (partition, fields) in enumerate(events):
        records.append(event_record(CONFIG, partition, offsets[partition], **fields))
        offsets[partition] += 1
        if at % 3 == 2 and titles:
            records.append(titles.pop(0))
    records += titles
    batches, at = [], 0
    for length in [*lengths, len(records)]:
        batches.append(records[at : at + length])
        at += length
    return [batch for batch in batches if batch]


@pytest.mark.parametrize("max_items", [8, 2])
@settings(max_examples=40)
@given(
    events=events,
    items=items,
    lengths=st.lists(st.integers(1, 3), max_size=30),
    lives=st.lists(st.integers(1, 40), max_size=4),
    piece_bytes=st.sampled_from(PIECES_BYTES),
    fails=st.lists(st.booleans(), max_size=30),
)
def test_an_engine_killed_anywhere_ends_in_the_state_of_one_that_never_stopped(
    max_items, events, items, lengths, lives, piece_bytes, fails
):
    batches = log_of(events, items, lengths)
    kept = Kept(fails)
    for steps in lives:
        engine = Engine(batches, kept, piece_bytes, max_items=max_items)
        for _ in range(steps):
            engine.step()
        engine.kill()
    recovered = Engine(batches, kept, max_items=max_items)
    one_by_one = [[record] for batch in batches for record in batch]
    straight = Engine(one_by_one, Kept(), max_items=max_items, items_first=False)
    got, want = recovered.digest(), straight.digest()
    assert got == want
    duplicates = sum(placed.slice.duplicates for placed in straight.pipeline.state.slices.values())
    assert sum(want.events_folded.values()) + duplicates + len(straight.letters.rejections) == len(events)
    for engine in (recovered, straight):
        engine.kept.fails.clear()
        engine.stop()
        assert engine.source.committed == want.positions
