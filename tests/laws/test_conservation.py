"""Law 8, for decoder and state: every record is an event folded, set aside or forgotten by, an item, or a rejection."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ousel.v1 import catalog_pb2, event_pb2

from engine.config import EventsConfig, KafkaConfig, StateConfig
from engine.events.batch import Record
from engine.events.codec import Decoder
from engine.state.state import State

KAFKA, PARTITIONS, NOW_MS = KafkaConfig(), 2, 1_700_000_000_000


def event(**fields) -> bytes:
    return event_pb2.Event(**fields).SerializeToString()


def item(**fields) -> bytes:
    return catalog_pb2.Item(**fields).SerializeToString()


GOOD_EVENTS = [
    *(event(user_id=f"u{at}", item_id=f"i{at % 5}", event_id=f"e{at % 7}") for at in range(9)),
    event(session_id="s", item_id="i1"),
    *(event(user_id=f"u{at}", target_user_id="u9", event_id=f"e{at}", ends=at == 2) for at in range(3)),
    event(item_id="i1", entity_id="brand"),
    b'{"user_id": "json", "item_id": "i1"}',
]
FORGETS = [
    event(user_id="u1", forget=True),
    event(user_id="u1", forget=True, event_id="e3"),
    event(session_id="s", forget=True),
]
BAD_EVENTS = [
    b"",
    b"{",
    b"\xff\xff",
    event(),
    event(user_id="u"),
    event(user_id="u", item_id="i", kind="none"),
    event(user_id="u", ends=True),
]
GOOD_ITEMS = [item(item_id="i1", title="Milk"), item(item_id="i2", deleted=True), b'{"item_id": "i3"}']
BAD_ITEMS = [item(), b"\xff", item(item_id="i", categories=[""])]
# What a record is, and its topic, partition and value.
kinds = st.one_of(
    st.tuples(
        st.just("event"), st.just(KAFKA.events_topic), st.integers(0, PARTITIONS - 1), st.sampled_from(GOOD_EVENTS)
    ),
    st.tuples(st.just("forget"), st.just(KAFKA.events_topic), st.integers(0, PARTITIONS - 1), st.sampled_from(FORGETS)),
    st.tuples(st.just("bad"), st.just(KAFKA.events_topic), st.integers(0, PARTITIONS - 1), st.sampled_from(BAD_EVENTS)),
    st.tuples(st.just("item"), st.just(KAFKA.items_topic), st.just(0), st.sampled_from(GOOD_ITEMS)),
    st.tuples(st.just("bad"), st.just(KAFKA.items_topic), st.just(0), st.sampled_from(BAD_ITEMS)),
)


@pytest.mark.parametrize("times", [1, 4])  # a batch short enough for the library, or long enough for numpy
@settings(max_examples=30)
@given(
    log=st.lists(kinds, max_size=30),
    steps=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 8)), max_size=8),
    limits=st.sampled_from(
        [{"duplicates_window": 3, "max_users": 6, "max_items": 3, "max_targets": 1}, {"duplicates_window": 0}, {}]
    ),
)
def test_every_record_polled_is_counted_once(times, log, steps, limits):
    decoder = Decoder(KAFKA, EventsConfig(), 0)
    state = State(
        StateConfig(**{"max_users": 64, "max_items": 64, "content_dim": 8} | limits), EventsConfig(), partitions=2
    )
    ends: dict[tuple[str, int], int] = {}
    records = []
    for kind, topic, partition, value in log * times:
        offset = ends.get((topic, partition), 0)
        ends[topic, partition] = offset + 1
        records.append((kind, Record(topic, partition, offset, NOW_MS, None, value)))
    counted = dict.fromkeys(["event", "forget", "bad", "item"], 0)
    polled = folded = rejected = items = forgets = at = 0
    for length, back in [*((length * times, back) for length, back in steps), (len(records), 0)]:
        part = records[max(0, at - back) : at + length]  # the last records may come again
        at = min(len(records), at + length)
        decoded = decoder.decode([record for _, record in part])
        assert len(decoded.events) + len(decoded.items) + len(decoded.rejected) == len(part)
        for kind, _ in part:
            counted[kind] += 1
        polled, forgets = polled + len(part), forgets + int(decoded.events.forget.sum())
        rejected, items = rejected + len(decoded.rejected), items + len(decoded.items)
        result = state.fold(decoded)
        folded += len(result.event) + len(result.relation)
    assert (rejected, items, forgets) == (counted["bad"], counted["item"], counted["forget"])
    assert items == state.items_folded
    slices = [placed.slice for placed in state.slices.values()]
    assert folded == state.events_folded == sum(one.events_folded for one in slices)
    assert state.positions == ends
    # What comes again is redelivered; of the rest, what repeats an event id is a repeat.
    once, repeats = fresh_of(records, limits.get("duplicates_window", 65_536))
    events_polled = counted["event"] + counted["forget"]
    assert sum(one.redelivered for one in slices) == events_polled - len(once) - repeats
    assert sum(one.duplicates for one in slices) == repeats
    assert folded == once.count("event")
    assert sum(one.forgotten for one in slices) <= once.count("forget")


def fresh_of(records: list[tuple[str, Record]], window: int) -> tuple[list[str], int]:
    """The kinds of those records of the events topic that count, and how many repeat an event id of their subject."""
    recent: dict[int, list[tuple[object, ...]]] = {partition: [] for partition in range(PARTITIONS)}
    fresh, repeats = [], 0
    for kind, record in records:
        if kind not in ("event", "forget"):
            continue
        event = event_pb2.Event() if record.value[:1] == b"{" else event_pb2.Event.FromString(record.value)
        whose = ("user", event.user_id) if event.user_id else ("session", event.session_id, event.item_id)
        whose = whose[:2] if event.session_id else whose
        seen, key = recent[record.partition], (event.event_id, whose)
        if event.event_id and key in seen:
            repeats += 1
            continue
        fresh.append(kind)
        if event.event_id and window:
            recent[record.partition] = [*seen, key][-window:]
    return fresh, repeats
