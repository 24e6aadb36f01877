from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from ousel.v1 import catalog_pb2, event_pb2

from engine.events.batch import Flaw, Record
from engine.events.codec import Decoder, validate_event
from engine.events.times import earliest_ms
from tests.engine.events.both_ways import decoded_both_ways
from tests.engine.events.payloads import (
    DIM,
    EVENTS,
    KAFKA,
    NOW_MS,
    at,
    decode,
    event,
    reason,
    record,
)


def test_an_event_becomes_a_row_of_columns() -> None:
    message = event(event_id="e", session_id="s", kind="cart", time=at(NOW_MS - 5), value=2.5)
    batch = decode(record(message.SerializeToString(), offset=9)).events
    assert (batch.event_id, batch.user_id, batch.session_id, batch.item_id) == (("e",), ("u",), ("s",), ("i",))
    columns = {"kind": (1, np.int8), "time_ms": (NOW_MS - 5, np.int64), "value": (2.5, np.float32)}
    columns |= {"partition": (1, np.int32), "offset": (9, np.int64), "timestamp_ms": (NOW_MS, np.int64)}
    for name, (value, dtype) in columns.items():
        column = getattr(batch, name)
        assert column.tolist() == [value]
        assert column.dtype == dtype


def test_what_an_event_leaves_out_has_defaults() -> None:
    batch = decode(record(event().SerializeToString(), timestamp_ms=NOW_MS + 7)).events
    assert batch.kind.tolist() == [0]
    assert batch.time_ms.tolist() == [NOW_MS + 7]
    assert batch.value.tolist() == [1.0]
    assert batch.event_id == batch.session_id == ("",)


def test_no_records_are_an_empty_batch() -> None:
    decoded = decode()
    assert len(decoded.events) == 0
    assert decoded.events.time_ms.dtype == np.int64
    assert decoded.positions == {}


def test_positions_are_the_next_offset_of_each_partition_rejected_or_not() -> None:
    good = event().SerializeToString()
    decoded = decode(
        record(good, partition=0, offset=3),
        record(b"\xff", partition=1, offset=8),
        record(good, partition=0, offset=5),
        record(None, KAFKA.items_topic, partition=0, offset=2),
    )
    topic = KAFKA.events_topic
    assert decoded.positions == {(topic, 0): 6, (topic, 1): 9, (KAFKA.items_topic, 0): 3}


def test_good_and_bad_records_keep_their_order() -> None:
    values = [event(item_id=f"i{n}").SerializeToString() if n % 3 else b"\xff" for n in range(10)]
    decoded = decode(*[record(value, offset=n) for n, value in enumerate(values)])
    assert decoded.events.offset.tolist() == [1, 2, 4, 5, 7, 8]
    assert decoded.events.item_id == ("i1", "i2", "i4", "i5", "i7", "i8")
    assert [r.record.offset for r in decoded.rejected] == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"item_id": ""}, "item_id must not be empty, got ''"),
        ({"user_id": ""}, "user_id or session_id must be set, got neither"),
        ({"kind": "foo"}, "kind must be one of ['view', 'cart'], got 'foo'"),
        ({"item_id": "x" * 17}, "item_id must have at most 16 bytes in UTF-8, got 17: 'xxxxxxxxxxxxxxxxx'"),
        ({"user_id": "ü" * 9}, "user_id must have at most 16 bytes in UTF-8, got 18: 'ü"),
        ({"session_id": "a\x1fb"}, "session_id must not have control characters, got 'a\\x1fb'"),
        ({"event_id": "a\x7f"}, "event_id must not have control characters, got 'a\\x7f'"),
        ({"event_id": "e" * 500}, "event_id must have at most 16 bytes in UTF-8, got 500: '" + "e" * 40 + "'..."),
        ({"value": math.nan}, "value must be a finite number >= 0, got nan"),
        ({"value": math.inf}, "value must be a finite number >= 0, got inf"),
        ({"value": -1.0}, "value must be a finite number >= 0, got -1.0"),
        ({"item_id": "i", "forget": True}, "item_id must be empty where forget is true, got 'i'"),
        ({"item_id": "", "user_id": "", "forget": True}, "user_id or session_id must be set, got neither"),
        ({"item_id": "", "kind": "foo", "forget": True}, "kind must be one of ['view', 'cart'], got 'foo'"),
        ({"time": at(-1)}, "time must not be before 1990-01-01T00:00:00.000Z (events.earliest_year), got 1969-12-31T"),
        ({"time": at(NOW_MS // 1000)}, "got 1970-01-20T16:13:20.000Z: seconds were perhaps taken for milliseconds"),
        (
            {"time": at(NOW_MS + 60_001)},
            "time must lie at most 60 s (events.max_future_s) ahead of its record, which is of 2023-11-14T22:13:20.000Z"
            ", got 2023-11-14T22:14:20.001Z",
        ),
        ({"time": Timestamp(seconds=2**62)}, "got 2116-02-20T23:53:38.427Z"),
        ({"time": Timestamp(seconds=-(2**62))}, "time must not be before 1990"),
    ],
)
def test_an_event_that_breaks_a_rule_is_rejected_alike_by_log_and_server(fields: dict[str, Any], said: str) -> None:
    message = event(**fields)
    decoded = decode(record(message.SerializeToString()))
    assert said in reason(decoded)
    assert validate_event(message, NOW_MS, EVENTS, may_forget=True) == reason(decoded)


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": "", "session_id": "s"},
        {"item_id": "x" * 16, "user_id": "y" * 16, "session_id": "z" * 16, "event_id": "e" * 16},
        {"item_id": "ü" * 8},
        {"item_id": "with space {}\"'"},
        {"time": at(NOW_MS + 60_000)},
        {"time": at(earliest_ms(1990))},
        {"value": 3.4e38},
        {"value": -0.0},
    ],
)
def test_what_lies_at_the_edge_of_a_rule_passes(fields: dict[str, Any]) -> None:
    message = event(**fields)
    assert validate_event(message, NOW_MS, EVENTS) is None
    batch = decode(record(message.SerializeToString())).events
    assert batch.item_id == (message.item_id,)
    assert batch.value.tolist() == [np.float32(message.value or 1.0)]


@pytest.mark.parametrize("fields", [{"user_id": "u"}, {"session_id": "s"}, {"user_id": "u", "session_id": "s"}])
def test_a_user_or_a_session_is_forgotten_without_an_item(fields: dict[str, str]) -> None:
    message = event_pb2.Event(forget=True, event_id="e", **fields)
    assert validate_event(message, NOW_MS, EVENTS, may_forget=True) is None
    json_fields = json.dumps(fields | {"forget": True, "event_id": "e"}).encode()
    for value in (message.SerializeToString(), json_fields):
        decoded = decode(record(value, offset=4), record(event().SerializeToString(), offset=5))
        batch = decoded.events
        assert not decoded.rejected
        assert batch.forget.dtype == np.bool_ and batch.forget.tolist() == [True, False]
        assert list(batch.item_id) == ["", "i"]
        assert batch.user_id[0] == fields.get("user_id", "") and batch.session_id[0] == fields.get("session_id", "")


def test_only_who_may_can_have_someone_forgotten() -> None:
    message = event_pb2.Event(forget=True, user_id="u")
    assert validate_event(message, NOW_MS, EVENTS) == "forget must be false: call PrivacyService.ForgetUser"
    assert validate_event(event(forget=False), NOW_MS, EVENTS) is None


def test_without_a_record_time_an_event_needs_its_own() -> None:
    said = reason(decode(record(event().SerializeToString(), timestamp_ms=-1)))
    assert said.startswith("time must not be before 1990") and "since it names none" in said
    own = event(time=at(NOW_MS)).SerializeToString()
    assert decode(record(own, timestamp_ms=-1)).events.time_ms.tolist() == [NOW_MS]


@pytest.mark.parametrize("value", [None, b""])
def test_an_event_without_a_payload_is_rejected(value: bytes | None) -> None:
    assert reason(decode(record(value))) == "payload must be ousel.v1.Event as protobuf or JSON, got nothing"


def test_another_topic_is_rejected() -> None:
    said = reason(decode(record(event().SerializeToString(), "other")))
    assert said == "topic must be one of ['ousel.events', 'ousel.items'], got 'other'"


JSON_EVENT = {"event_id": "e", "user_id": "u", "session_id": "s", "item_id": "i", "kind": "cart", "value": 2.5}


@pytest.mark.parametrize("few", [True, False])
def test_no_event_is_later_than_its_record_since_nothing_that_has_happened_lies_in_the_future(few):
    records = [
        record(event(time=at(NOW_MS + ahead_ms)).SerializeToString(), timestamp_ms=NOW_MS, offset=offset)
        for offset, ahead_ms in enumerate((-60_000, 0, 1, 60_000))
    ]
    records.append(record(event(time=at(NOW_MS + 5)).SerializeToString(), timestamp_ms=-1, offset=4))
    batch = decode(*records * (1 if few else 50)).events
    assert batch.time_ms.tolist()[:5] == [NOW_MS - 60_000, NOW_MS, NOW_MS, NOW_MS, NOW_MS + 5]


@pytest.mark.parametrize(
    ("time", "expected_ms"),
    [
        (NOW_MS + 1, NOW_MS + 1),
        (NOW_MS // 1000, NOW_MS),
        (str(NOW_MS // 1000), NOW_MS),
        (NOW_MS / 1000 + 0.123, NOW_MS + 123),
        (f"{NOW_MS // 1000}.123", NOW_MS + 123),
        (NOW_MS * 1000 + 5, NOW_MS),
        (NOW_MS * 1_000_000 + 999_999, NOW_MS),
        ({"seconds": str(NOW_MS // 1000), "nanos": 7_000_000}, NOW_MS + 7),
        ("2023-11-14 22:13:20 UTC", NOW_MS),
        ("2023-11-14T22:13:20Z", NOW_MS),
        ("2023-11-14T22:13:20.250Z", NOW_MS + 250),
        ("2023-11-14T23:13:20+01:00", NOW_MS),
        (None, NOW_MS),
    ],
)
def test_json_reads_like_protobuf(time: object, expected_ms: int) -> None:
    payload = JSON_EVENT | {"time": time, "attributes": {"a": "b"}, "unknown": [1], "extra": None}
    for text in (json.dumps(payload), "\r\n\t " + json.dumps(payload)):
        batch = decode(record(text.encode(), timestamp_ms=NOW_MS + 1000 * (time is not None))).events
        assert (batch.event_id, batch.user_id, batch.session_id, batch.item_id) == (("e",), ("u",), ("s",), ("i",))
        assert (batch.kind.tolist(), batch.value.tolist(), batch.time_ms.tolist()) == ([1], [2.5], [expected_ms])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"item_id": 5.0}, "item_id must be text or a whole number below 2**64, got 5.0"),
        ({"item_id": 2**64}, "item_id must be text or a whole number below 2**64, got 1.8446744073709552e+19"),
        ({"item_id": True}, "item_id must be text or a whole number below 2**64, got True"),
        ({"item_id": {"id": 5}}, "item_id must be text or a whole number below 2**64, got {'id': 5}"),
        ({"user_id": ["u"]}, "user_id must be text or a whole number below 2**64, got ['u']"),
        ({"value": "2,5"}, "value must be a number, got '2,5'"),
        ({"value": ""}, "value must be a number, got ''"),
        ({"value": "NaN"}, "value must be a finite number >= 0, got nan"),
        ({"value": "-Infinity"}, "value must be a finite number >= 0, got -inf"),
        ({"value": "1" + "0" * 60}, "value must be a finite number >= 0, got inf"),
        ({"value": True}, "value must be a number, got True"),
        ({"value": 1e300}, "value must be a finite number >= 0, got inf"),
        ({"forget": "yes"}, "forget must be true or false, got 'yes'"),
        ({"forget": 1}, "forget must be true or false, got 1"),
        ({"time": "yesterday"}, "time must be RFC 3339 text with a zone, such as 2026-03-31T08:00:00Z, or a number of"),
        (
            {"time": "2023-11-14T22:13:20"},
            "Z is, or events.time_zone must be set",
        ),
        ({"time": 1.5}, "time must not be before 1990-01-01T00:00:00.000Z"),
        ({"time": False}, "time must be RFC 3339 text with a zone"),
        ({"time": {"seconds": 1, "nanos": 0, "extra": 0}}, "time must be RFC 3339 text with a zone"),
        ({"time": {"seconds": "x"}}, "time must be RFC 3339 text with a zone"),
        ({"time": 2**64 - 1}, "time must lie at most 60 s (events.max_future_s) ahead of its record"),
        ({"time": "1" + "0" * 23}, "time must be a time of the years 1 to 9999, got '1000"),
        ({"time": -(2**63)}, "time must not be before 1990"),
        ({"item_id": "a\u0000"}, "item_id must not have control characters"),
        ({"kind": "x" * 100}, "got '" + "x" * 40 + "'..."),
    ],
)
def test_json_of_the_wrong_type_is_rejected(fields: dict[str, Any], said: str) -> None:
    assert said in reason(decode(record(json.dumps(JSON_EVENT | fields).encode())))


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b'{"item_id": "\\ud800"}',
        b'{"value": NaN}',
        b'{"a":' * 5000,
        b"{}}",
        b'{"item_id": "\xff"}',
        b" \n{",
        b"[1]",
    ],
)
def test_broken_json_is_rejected(payload: bytes) -> None:
    assert reason(decode(record(payload))).startswith("payload must be ousel.v1.Event as protobuf or JSON: ")


@pytest.mark.parametrize("start", ["{", " {", '{"a":'])
def test_protobuf_that_starts_like_json_is_read_as_protobuf(start: str) -> None:
    # The tag of field 1 is a line feed, and a length of 123 behind it is a brace.
    config = EVENTS.model_copy(update={"max_id_bytes": 300})
    for length in range(len(start), 300):
        message = event(event_id=start.ljust(length, "x"))
        decoded = Decoder(KAFKA, config, DIM).decode([record(message.SerializeToString())])
        assert decoded.events.event_id == (message.event_id,)


ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.builds(Timestamp, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))
messages = st.one_of(
    st.builds(
        event_pb2.Event,
        event_id=ids,
        user_id=ids,
        session_id=ids,
        item_id=ids,
        kind=st.sampled_from(["", "view", "cart", "other"]),
        time=st.none() | times,
        value=st.floats(width=32),
        forget=st.sampled_from([False, False, True]),
    ),
    st.builds(
        catalog_pb2.Item,
        item_id=ids,
        title=ids,
        categories=st.lists(ids, max_size=3),
        features=st.lists(st.floats(width=32), max_size=4),
        available_from=st.none() | times,
        available_until=st.none() | times,
    ),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | ids,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ids, inner, max_size=3),
    max_leaves=5,
)
names = [*event_pb2.Event.DESCRIPTOR.fields_by_name, *catalog_pb2.Item.DESCRIPTOR.fields_by_name]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message's bytes with some of them overwritten, cut out or doubled."""
    payload = bytearray(draw(messages).SerializeToString())
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(payload)))
        end = draw(st.integers(start, min(len(payload), start + 4)))
        payload[start:end] = draw(st.binary(max_size=4))
    return bytes(payload)


payloads = st.one_of(
    st.none(),
    st.binary(max_size=64),
    mutated(),
    st.dictionaries(st.sampled_from(names) | ids, json_values, max_size=6).map(
        lambda fields: json.dumps(fields).encode()
    ),
)
records = st.builds(
    Record,
    topic=st.sampled_from([KAFKA.events_topic, KAFKA.items_topic, "other"]),
    partition=st.integers(0, 2),
    offset=st.integers(0, 2**62),
    timestamp_ms=st.integers(-1, 2**62),
    key=st.none() | st.binary(max_size=20),
    value=payloads,
    flaw=st.none() | st.builds(Flaw, st.integers(0, 2**62), st.integers(1, 9), st.sampled_from(["damaged", "long"])),
)


@settings(deadline=None)
@given(st.lists(records, max_size=8))
def test_every_record_becomes_one_event_item_or_rejection(given_records: list[Record]) -> None:
    decoded = decoded_both_ways(Decoder(KAFKA, EVENTS, DIM), given_records)
    assert len(decoded.events) + len(decoded.items) + len(decoded.rejected) == len(given_records)
    assert set(decoded.positions) == {(r.topic, r.partition) for r in given_records}
    left = Counter(r.offset for r in given_records if r.topic == KAFKA.events_topic)
    left -= Counter(r.record.offset for r in decoded.rejected if r.record.topic == KAFKA.events_topic)
    assert Counter(decoded.events.offset.tolist()) == left
    assert all(r.reason.encode() for r in decoded.rejected)
    assert sum(r.records for r in decoded.rejected if r.record.flaw) == sum(
        r.flaw.records for r in given_records if r.flaw
    )
    batch = decoded.events
    assert np.isfinite(batch.value).all() and (batch.value > 0).all()
    assert (batch.time_ms >= earliest_ms(EVENTS.earliest_year)).all()
    assert [not item_id for item_id in batch.item_id] == batch.forget.tolist()
    assert all(u or s for u, s in zip(batch.user_id, batch.session_id, strict=True))


@settings(deadline=None)
@given(messages.filter(lambda message: isinstance(message, event_pb2.Event)), st.integers(0, 2**42))
def test_the_server_accepts_exactly_what_the_log_does(message: event_pb2.Event, now_ms: int) -> None:
    decoded = decode(record(message.SerializeToString(), timestamp_ms=now_ms))
    reasons = [rejection.reason for rejection in decoded.rejected]
    accepted = validate_event(message, now_ms, EVENTS, may_forget=True)
    if message.ByteSize():
        assert reasons == ([] if accepted is None else [accepted])
