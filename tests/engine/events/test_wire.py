from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EventsConfig
from engine.events.batch import Record
from engine.events.codec import Decoder
from engine.events.records import Records
from engine.events.times import earliest_ms
from engine.events.wire import EventParser
from tests.engine.events.both_ways import decoded_both_ways
from tests.engine.events.payloads import DIM, EVENTS, KAFKA, NOW_MS, at, event, record

LONG = EventsConfig(kinds={"view": 1.0, "add to cart": 2.0, "é": 1.0}, default_kind="view", max_id_bytes=300)
USUAL = {"event_id": "e" * 16, "user_id": "u", "session_id": "s", "item_id": "i", "kind": "cart"}


def left_over(records: list[Record], config: EventsConfig = EVENTS) -> list[int]:
    """Positions of what is left to the library, having seen that it would say the same of all else."""
    decoded_both_ways(Decoder(KAFKA, config, DIM), records)
    rest: list[int] = EventParser(KAFKA.events_topic, config).parse(Records.packed(records)).rest.tolist()
    return rest


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"time": at(NOW_MS), "value": 2.5},
        {"time": at(earliest_ms(1990)), "value": -0.0},
        {"time": Timestamp(seconds=NOW_MS // 1000, nanos=999_999_999)},
        {"event_id": ""},
        {"user_id": ""},
        {"session_id": ""},
        {"event_id": "{" * 16},
        {"kind": ""},
        {"item_id": " ~!\"'\\"},
    ],
)
def test_usual_events_are_read_at_once(fields: dict[str, Any]) -> None:
    message = event(**USUAL | fields).SerializeToString()
    usual = event(**USUAL, time=at(NOW_MS)).SerializeToString()
    assert left_over([record(message)]) == []
    assert left_over([record(value, offset=n) for n, value in enumerate([message, usual, message])]) == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\x0a",
        b"\xff" * 40,
        json.dumps(USUAL).encode(),
        event(**USUAL | {"item_id": ""}).SerializeToString(),
        event(**USUAL | {"item_id": "x" * 17}).SerializeToString(),
        event(**USUAL | {"item_id": "é"}).SerializeToString(),
        event(**USUAL | {"item_id": "\x1f"}).SerializeToString(),
        event(**USUAL | {"item_id": "\x7f"}).SerializeToString(),
        event(**USUAL | {"kind": "other"}).SerializeToString(),
        event(**USUAL | {"kind": "cart\0"}).SerializeToString(),
        event(**USUAL, attributes={"a": "b"}).SerializeToString(),
        event(**USUAL | {"item_id": ""}, forget=True).SerializeToString(),
        event(**USUAL, value=float("nan")).SerializeToString(),
        event(**USUAL, value=-1.0).SerializeToString(),
        event(**USUAL, value=float("inf")).SerializeToString(),
        event(**USUAL, time=at(-1)).SerializeToString(),
        event(**USUAL, time=at(NOW_MS // 1000)).SerializeToString(),
        event(**USUAL, time=at(earliest_ms(1990) - 1)).SerializeToString(),
        event(**USUAL, time=Timestamp(seconds=NOW_MS)).SerializeToString(),
        event(**USUAL, time=at(NOW_MS + 60_001)).SerializeToString(),
        event(**USUAL, time=Timestamp(seconds=1, nanos=-1)).SerializeToString(),
        event(**USUAL, time=Timestamp(seconds=2**40)).SerializeToString(),
        event(**USUAL).SerializeToString()[:-1],
        event(item_id="item").SerializeToString()[:-1],
        event(value=1.0).SerializeToString()[:-1],
        event(**USUAL).SerializeToString() * 2,
        # Seconds that don't end, seconds that end behind what looks like nanos, nanos beyond 32 bits, a wrong type.
        event().SerializeToString() + b"\x32\x06\x08\x81\x81\x81\x81\x81",
        event().SerializeToString() + b"\x32\x08\x08\x81\x81\x81\x81\x81\x10\x00",
        event().SerializeToString() + b"\x32\x08\x08\x01\x10\x80\x80\x80\x80\x08",
        event().SerializeToString() + b"\x32\x08\x08\x01\x10\x80\x80\x80\x80\x10",
        event().SerializeToString() + b"\x32\x03\x0a\x01\x01",
        b"\x2a\x04view",
        event(**USUAL).SerializeToString() + b"\x48\x00",
        event(**USUAL, time=at(NOW_MS)).SerializeToString() + b"\x52\x01x",
    ],
)
def test_anything_unusual_is_left_to_the_library_among_usual_events(value: bytes | None) -> None:
    usual = event(**USUAL, time=at(NOW_MS)).SerializeToString()
    values = [usual, value, usual, usual, value]
    assert left_over([record(each, offset=n) for n, each in enumerate(values)]) == [1, 4]


def test_a_record_ends_where_the_next_begins() -> None:
    assert left_over([record(event().SerializeToString(), offset=0), record(b"\x2a\x04view", offset=1)]) == [1]


def test_records_of_another_topic_are_left_to_the_library() -> None:
    value = event(**USUAL).SerializeToString()
    topics = [KAFKA.events_topic, KAFKA.items_topic, "other", KAFKA.events_topic]
    assert left_over([record(value, topic) for topic in topics]) == [1, 2]


def test_long_ids_and_kinds_of_any_name_are_read_alike() -> None:
    for size in (127, 128, 129, 255, 256, 300):
        left = left_over([record(event(event_id="e" * size, kind="add to cart").SerializeToString())], LONG)
        assert left == ([] if size < 128 else [0])
    assert left_over([record(event(kind="é").SerializeToString())], LONG) == []
    assert left_over([record(event(kind="add to car").SerializeToString())], LONG) == [0]
    # A length of two bytes, and behind as many bytes as the first says, something that looks like an event.
    assert left_over([record(b"\x0a\x82\x20" + b"a" * 129 + event().SerializeToString())], LONG) == [0]


@pytest.mark.parametrize("timestamp_ms", [-1, 0, NOW_MS, 2**62])
def test_without_a_time_the_records_counts(timestamp_ms: int) -> None:
    fits = timestamp_ms == NOW_MS
    assert left_over([record(event().SerializeToString(), timestamp_ms=timestamp_ms)]) == ([] if fits else [0])


def test_without_a_record_time_the_calendar_bounds_the_events() -> None:
    assert left_over([record(event(time=at(NOW_MS)).SerializeToString(), timestamp_ms=-1)]) == []


def _varint(number: int, spare: int = 0) -> bytes:
    """A number's bytes, with this many more than needed."""
    groups = []
    while number or not groups:
        groups.append(number & 0x7F)
        number >>= 7
    groups += [0] * spare
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


odd_varints = st.builds(
    _varint,
    st.integers(0, 3) | st.integers(0, 2**36) | st.integers(2**63, 2**64 - 1),
    st.sampled_from([0, 0, 1, 5]),
)
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=16)
odd_texts = st.sampled_from(["", "é", "\n", "\x7f", "a\0", "x" * 17, "view", "view\0"])
odd_fields = [b"\x48\x01", b"\x48\x00", b"\x42\x00", b"\x52\x00", b"\x78\x05", b"\x08\x05"]
rarely = st.sampled_from([False] * 24 + [True])


def _delimited(number: int, content: bytes, spare: int = 0) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content), spare) + content


@st.composite
def crafted(draw: st.DrawFn) -> bytes:
    """Fields as a producer writes them, now and then out of order, twice, oddly written, of another type or unknown."""
    fields = []
    for number in (1, 2, 3, 4):
        if number == 4 or draw(st.booleans()):
            content = draw(odd_texts if draw(rarely) else texts).encode()
            fields.append(_delimited(number, content, int(draw(rarely))))
    if draw(st.booleans()):
        fields.append(_delimited(5, draw(odd_texts if draw(rarely) else st.sampled_from(["view", "cart"])).encode()))
    if draw(st.booleans()):
        seconds = draw(odd_varints) if draw(rarely) else _varint(NOW_MS // 1000)
        nanos = draw(odd_varints) if draw(rarely) else _varint(250_000_000)
        parts = [b"\x08" + seconds] * draw(st.booleans()) + [b"\x10" + nanos] * draw(st.booleans())
        fields.append(_delimited(6, b"".join(parts) + draw(st.binary(max_size=2)) * draw(rarely)))
    if draw(st.booleans()):
        fields.append(b"\x3d" + draw(st.floats(-1, 4, width=32).map(lambda x: struct.pack("<f", x))))
    if draw(rarely):
        fields.append(draw(st.sampled_from(odd_fields)))
    if draw(rarely):
        fields = draw(st.permutations(fields))
    if draw(rarely):
        fields.append(draw(st.sampled_from(fields)))
    payload = b"".join(fields)
    return payload[: draw(st.integers(0, len(payload)))] if draw(rarely) else payload


batches = st.lists(
    st.builds(
        Record,
        topic=st.sampled_from([KAFKA.events_topic] * 7 + [KAFKA.items_topic]),
        partition=st.integers(0, 1),
        offset=st.integers(0, 2**62),
        timestamp_ms=st.sampled_from([NOW_MS, NOW_MS, -1, 0, 2**62]),
        key=st.none(),
        value=st.one_of(*[crafted()] * 8, st.none(), st.binary(max_size=20)),
    ),
    max_size=12,
)


@settings(max_examples=100)
@given(batches)
def test_a_batch_read_at_once_is_what_the_library_reads(records: list[Record]) -> None:
    decoded_both_ways(Decoder(KAFKA, EVENTS, DIM), records)
