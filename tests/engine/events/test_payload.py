"""JSON as other people's producers write it, and what a refused record is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import given
from hypothesis import strategies as st
from ousel.v1 import catalog_pb2, event_pb2

from engine.events.batch import CatalogItem, Decoded
from engine.events.codec import Decoder
from tests.engine.events.payloads import DIM, EVENTS, KAFKA, NOW_MS, at, decode, event, reason, record

ids = st.text("abcüñ9 {\"':", min_size=1, max_size=4).filter(str.strip)


def read(fields: dict[str, Any] | bytes, topic: str = KAFKA.events_topic) -> Decoded:
    return decode(record(fields if isinstance(fields, bytes) else json.dumps(fields).encode(), topic))


def item(fields: dict[str, Any]) -> CatalogItem:
    (found,) = read(fields, KAFKA.items_topic).items
    return found


@given(
    st.builds(
        event_pb2.Event,
        event_id=ids,
        user_id=ids,
        session_id=ids,
        item_id=ids,
        kind=st.sampled_from(["", "cart"]),
        value=st.floats(0, 1e6, width=32),
        time=st.integers(0, 10**9).map(lambda ago_ms: at(NOW_MS - ago_ms)),
    )
)
def test_what_protobufs_own_printer_writes_is_read_as_the_message_is(message: event_pb2.Event) -> None:
    want = decode(record(message.SerializeToString())).events
    for snake in (False, True):
        got = read(MessageToJson(message, preserving_proto_field_name=snake).encode()).events
        assert len(got) == 1
        assert [got.event_id, got.user_id, got.session_id, got.item_id, got.kind.tolist(), got.time_ms.tolist()] == [
            want.event_id, want.user_id, want.session_id, want.item_id, want.kind.tolist(), want.time_ms.tolist(),
        ]  # fmt: skip
        assert got.value.tolist() == want.value.tolist()


def test_an_item_as_protobufs_printer_writes_it_is_read_whole() -> None:
    message = catalog_pb2.Item(
        item_id="i", title="t", categories=["a"], features=[1, 2, 3], attributes={"b": "2", "a": "1"},
        available_from=at(NOW_MS), available_until=at(NOW_MS + 1),
    )  # fmt: skip
    want = CatalogItem(
        "i", "t", ("a",), (1.0, 2.0, 3.0), NOW_MS, NOW_MS + 1, attributes=(("a", "1"), ("b", "2"))
    )  # fmt: skip
    assert read(MessageToJson(message).encode(), KAFKA.items_topic).items == [want]


@given(st.integers(-(2**63), -2) | st.integers(1, 2**64 - 1))  # 0 and -1 are placeholders of nobody.
def test_whole_numbers_are_ids_by_their_decimal_form(number: int) -> None:
    wide = EVENTS.model_copy(update={"max_id_bytes": 32})
    payload = json.dumps({"itemId": number, "user_id": number, "session_id": number, "event_id": number}).encode()
    batch = Decoder(KAFKA, wide, DIM).decode([record(payload)]).events
    columns = (batch.item_id, batch.user_id, batch.session_id, batch.event_id)
    assert [column[0] for column in columns] == [str(number)] * 4


def test_numbers_are_read_from_text_and_text_of_items_from_numbers() -> None:
    assert read({"item_id": "i", "user_id": "u", "value": "2.5e0"}).events.value.tolist() == [2.5]
    found = item({"item_id": 7, "title": 1984, "categories": [12, "a"], "features": ["1", 2.0, "3e-1"]})
    assert (found.item_id, found.title, found.categories) == ("7", "1984", ("12", "a"))
    assert found.features == pytest.approx((1.0, 2.0, 0.3))


def test_attributes_of_an_item_are_kept_as_text_by_name() -> None:
    given = {"price": 9.99, "stock": 3, "new": True, "brand": "Ä", "none": None}
    expected = (("brand", "Ä"), ("new", "true"), ("price", "9.99"), ("stock", "3"))
    assert item({"item_id": "i", "attributes": given}).attributes == expected


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({str(n): "" for n in range(65)}, "attributes must be at most 64 (events.max_attributes), got 65"),
        ({"a": "ü" * 4096}, "attributes must have at most 8192 bytes (events.max_attribute_bytes) in names and"),
        ({"": "x"}, "attributes must have names, got ''"),
        ({"a\n": "x"}, "the name of an attribute must not have control characters, got 'a\\n'"),
    ],
)
def test_attributes_of_an_item_are_bounded_in_number_and_bytes(attributes: dict[str, str], said: str) -> None:
    assert said in reason(read({"item_id": "i", "attributes": attributes}, KAFKA.items_topic))
    message = catalog_pb2.Item(item_id="i", attributes=attributes).SerializeToString()
    assert said in reason(read(message, KAFKA.items_topic))


def test_both_names_of_a_field_must_agree_and_null_is_no_value() -> None:
    assert read({"item_id": "i", "itemId": "i", "userId": "u", "user_id": None}).events.user_id == ("u",)
    said = reason(read({"itemId": "j", "item_id": "i", "user_id": "u"}))
    assert said == "itemId and item_id must agree where both are given, got 'j' and 'i'"


@given(st.permutations([("item_id", "i"), ("user_id", "u"), ("time", "2023-11-14T22:13:20Z")]), st.sampled_from(":,"))
def test_a_field_that_is_there_twice_with_two_values_is_refused(pairs: list[tuple[str, str]], spaced: str) -> None:
    colon = " : " if spaced == ":" else ":"

    def written(*fields: tuple[str, str]) -> bytes:
        return ("{" + ",".join(f"{json.dumps(k)}{colon}{json.dumps(v)}" for k, v in fields) + "}").encode()

    assert read(written(*pairs)).events.item_id == ("i",)
    assert read(written(*pairs, ("item_id", "i"))).events.item_id == ("i",)
    assert reason(read(written(*pairs, ("item_id", "j")))) == "item_id must be there once, got 'i' and 'j'"
    assert read(written(*pairs, ("x", "1"), ("x", "2"), ("y", '":":'))).events.item_id == ("i",)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"itemid": "i", "visitorid": "u", "user_id": "u"},
            "item_id must not be empty, got ''; unknown fields itemid, visitorid",
        ),
        ({"item_id": 1.5, "a\n": 1, "ü": 2}, "got 1.5; unknown fields 'a\\n', 'ü'"),
        ({str(n): 1 for n in range(10)}, "unknown fields 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"),
        ({"x" * 41: 1}, "unknown fields '" + "x" * 40 + "'..."),
        ({"item_id": "i", "userid": "u"}, "user_id or session_id must be set, got neither; unknown fields userid"),
    ],
)
def test_the_reason_of_a_refused_record_names_its_unknown_fields(fields: dict[str, Any], said: str) -> None:
    assert said in reason(read(fields))


def test_the_reason_names_unknown_fields_of_items_and_of_protobuf() -> None:
    said = reason(read({"id": "i", "name": "t"}, KAFKA.items_topic))
    assert said == "item_id must not be empty, got ''; unknown fields id, name"
    message = event(item_id="", attributes={"a": "b"}).SerializeToString() + b"\x9d\x06" + b"\0" * 4
    said = reason(read(message))
    assert said == "item_id must not be empty, got ''; unknown fields attributes, 99"


@pytest.mark.parametrize("fields", [{"visitorid": 5}, {"attributes": ["no", {"object": 1}]}, {"": 1}, {"$x.y": None}])
def test_an_unknown_field_alone_refuses_no_record(fields: dict[str, Any]) -> None:
    assert read({"item_id": "i", "user_id": "u"} | fields).events.item_id == ("i",)
    if "attributes" not in fields:
        assert item({"item_id": "i"} | fields).item_id == "i"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'[{"item_id": "i"}]', "each record must hold one object, got a list of 1"),
        (b"  []", "each record must hold one object, got a list of 0"),
        (b"[" * 9000, "as protobuf or JSON: "),
        (b'{"a":' * 9000, "as protobuf or JSON: "),
        (b'{"item_id": "i", "value": NaN}', "as protobuf or JSON: "),
        (b'{"item_id": "i", "value": 1e999}', "number is infinity"),
        (b'{"item_id": "\xff"}', "as protobuf or JSON: "),
        ('{"item_id": "i"}'.encode("utf-16"), "as protobuf or JSON: "),
        (json.dumps('{"item_id": "i"}').encode(), "it is text that holds JSON, which was encoded twice"),
        (b"\xef\xbb\xbf", "as protobuf or JSON: "),
        (b"null", "as protobuf or JSON: "),
    ],
)
def test_what_is_no_object_of_json_is_refused_with_a_reason(payload: bytes, said: str) -> None:
    assert said in reason(read(payload))


def test_a_byte_order_mark_is_skipped() -> None:
    assert read(b'\xef\xbb\xbf {"item_id": "i", "user_id": "u"}').events.item_id == ("i",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
names = ["item_id", "itemId", "user_id", "userId", "time", "value", "attributes", "categories", "features"]
names += ["title", "availableFrom", "deleted", "forget", "payload", "schema", "op", "before", "after", "data"]
names += ["specversion", "data_base64", "id", "__deleted"]
objects = st.dictionaries(st.sampled_from(names), json_values, max_size=6)
nested = st.builds(lambda outer, name, inner: outer | {name: inner}, objects, st.sampled_from(names), objects)
framed = st.builds(lambda header, rest: b"\0" + header + rest, st.binary(min_size=4, max_size=4), st.binary(max_size=9))
keys = st.none() | st.binary(max_size=8) | (objects | json_values).map(lambda value: json.dumps(value).encode())


@given(
    st.lists(
        st.tuples(
            (objects | nested).map(lambda fields: json.dumps(fields).encode())
            | framed
            | st.binary(max_size=30)
            | st.just(b""),
            keys,
            st.sampled_from([KAFKA.events_topic, KAFKA.items_topic]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["", "debezium", "cloudevents,debezium,schema-registry"]),
)
def test_no_record_raises_and_each_is_accepted_or_refused_with_a_printable_reason(
    given_records: list[tuple[bytes, bytes | None, str]], envelope: str
) -> None:
    decoder = Decoder(KAFKA, EVENTS.model_copy(update={"envelope": envelope}), DIM)
    records = [record(value, topic, key=key) for value, key, topic in given_records]
    decoded = decoder.decode(records)
    assert len(decoded.events) + len(decoded.items) + len(decoded.rejected) == len(records)
    for rejection in decoded.rejected:
        assert rejection.reason.isprintable(), rejection.reason
        assert 0 < len(rejection.reason) < 1500
