"""Law 8: every record that was polled is counted under exactly one outcome, in the state and in the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ousel.v1 import catalog_pb2, event_pb2
from prometheus_client.parser import text_string_to_metric_families

from engine.config import Config, EventsConfig, KafkaConfig, StateConfig
from engine.events.batch import Flaw, Record
from engine.events.codec import Decoder
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import MemorySource
from engine.pipeline import Pipeline
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
ALL_KINDS = ("event", "forget", "bad", "item", "unread")
# What a record is, and its topic, partition and value.
kinds = st.one_of(
    st.tuples(
        st.just("event"), st.just(KAFKA.events_topic), st.integers(0, PARTITIONS - 1), st.sampled_from(GOOD_EVENTS)
    ),
    st.tuples(st.just("forget"), st.just(KAFKA.events_topic), st.integers(0, PARTITIONS - 1), st.sampled_from(FORGETS)),
    st.tuples(st.just("bad"), st.just(KAFKA.events_topic), st.integers(0, PARTITIONS - 1), st.sampled_from(BAD_EVENTS)),
    st.tuples(st.just("item"), st.just(KAFKA.items_topic), st.just(0), st.sampled_from(GOOD_ITEMS)),
    st.tuples(st.just("bad"), st.just(KAFKA.items_topic), st.just(0), st.sampled_from(BAD_ITEMS)),
    # So many records in one place that can't be read.
    st.tuples(
        st.just("unread"),
        st.sampled_from([KAFKA.events_topic, KAFKA.items_topic]),
        st.just(0),
        st.integers(1, 5),
    ),
)


def record_at(kind: str, topic: str, partition: int, value: bytes | int, offset: int) -> Record:
    if kind == "unread":
        key = b"i1"  # as though it were a tombstone
        return Record(topic, partition, offset, NOW_MS, key, None, Flaw(offset + value - 1, value, "damaged"))
    return Record(topic, partition, offset, NOW_MS, None, value)


def count_of(records: Iterable[tuple[str, Record]], *kinds: str) -> int:
    """How many records of the log these are; one that can't be read stands for several."""
    return sum(record.flaw.records if record.flaw else 1 for kind, record in records if kind in kinds)


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
        record = record_at(kind, topic, partition, value, offset)
        ends[topic, partition] = record.next_offset
        records.append((kind, record))
    counted = dict.fromkeys(ALL_KINDS, 0)
    polled = folded = rejected = items = forgets = at = 0
    for length, back in [*((length * times, back) for length, back in steps), (len(records), 0)]:
        part = records[max(0, at - back) : at + length]  # the last records may come again
        at = min(len(records), at + length)
        decoded = decoder.decode([record for _, record in part])
        assert len(decoded.events) + len(decoded.items) + len(decoded.rejected) == len(part)
        for kind in ALL_KINDS:
            counted[kind] += count_of(part, kind)
        polled, forgets = polled + len(part), forgets + int(decoded.events.forget.sum())
        rejected += sum(rejection.records for rejection in decoded.rejected)
        items += len(decoded.items)
        result = state.fold(decoded)
        folded += len(result.event) + len(result.relation)
    assert (rejected, items, forgets) == (counted["bad"] + counted["unread"], counted["item"], counted["forget"])
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


def scraped() -> Counter[tuple[str, str]]:
    """The counts as an operator scrapes them, by topic and outcome; "polled" is what the log has handed over."""
    counts: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(prometheus_client.generate_latest().decode()):
        for sample in family.samples:
            if sample.name == "ousel_records_total":
                counts[sample.labels["topic"], sample.labels["outcome"]] += int(sample.value)
            elif sample.name == "ousel_records_polled_total":
                counts[sample.labels["topic"], "polled"] += int(sample.value)
    return counts


class Nobody:
    """An audience without streams."""

    def mark(self, *_, **__):
        pass

    mark_catalog = mark

    def due(self, *_, **__):
        return []


@settings(max_examples=30, deadline=None)
@given(
    log=st.lists(kinds, max_size=30),
    steps=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 8)), max_size=6),
    window=st.sampled_from([0, 3, 65_536]),
)
def test_the_outcomes_that_an_operator_scrapes_add_up_to_the_records_polled(log, steps, window):
    config = Config(kafka=KAFKA, state=StateConfig(max_users=64, max_items=64, content_dim=8, duplicates_window=window))
    ends: dict[tuple[str, int], int] = {}
    records = []
    both = [("event", KAFKA.events_topic, partition, GOOD_EVENTS[0]) for partition in range(PARTITIONS)]
    for kind, topic, partition, value in both + log:
        offset = ends.get((topic, partition), 0)
        record = record_at(kind, topic, partition, value, offset)
        ends[topic, partition] = record.next_offset
        records.append((kind, record))
    batches, at = [], 0
    for length, back in [*steps, (len(records), 0)]:
        batches.append(records[max(0, at - back) : at + length])  # the last records may come again
        at = min(len(records), at + length)
    source = MemorySource([[record for _, record in batch] for batch in batches if batch])
    pipeline, letters, before = Pipeline(config, Nobody()), MemoryDeadLetters(), scraped()
    for _ in batches:
        pipeline.step(source, letters)
    counts = scraped()
    counts.subtract(before)
    pipeline.close()

    polled = [one for batch in batches for one in batch]
    seen: set[tuple[str, int, int]] = set()
    first = []
    for kind, record in polled:
        place = (record.topic, record.partition, record.offset)
        first += [] if place in seen else [(kind, record)]
        seen.add(place)
    once, repeats = fresh_of(first, window)
    for topic in (KAFKA.events_topic, KAFKA.items_topic):
        outcomes = {outcome: count for (of, outcome), count in counts.items() if of == topic and outcome != "polled"}
        all_, new = ([one for one in records if one[1].topic == topic] for records in (polled, first))
        assert sum(outcomes.values()) == counts[topic, "polled"] == count_of(all_, *ALL_KINDS)
        assert counts[topic, "dead_letter"] == count_of(new, "bad", "unread")
    events = KAFKA.events_topic
    assert counts[events, "event"] + counts[events, "relation"] == once.count("event")
    assert (counts[events, "forget"], counts[events, "repeated"]) == (once.count("forget"), repeats)
    items = [record for kind, record in polled if kind == "item"]
    deleted = sum(record.value == GOOD_ITEMS[1] for record in items)
    assert counts[KAFKA.items_topic, "deletion"] == deleted
    assert counts[KAFKA.items_topic, "item"] == len(items) - deleted
    assert pipeline.status().events_dead_lettered == count_of(first, "bad", "unread")
    # Each polling hands a bad record over again, and the letters are written once by their positions.
    assert len(letters.rejections) == sum(kind in ("bad", "unread") for kind, _ in polled)


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
