"""Envelopes of other tools are read where the setting says so, and named in the reason where it does not."""

from __future__ import annotations

import base64
import json

import pytest
from ousel.v1 import catalog_pb2
from pydantic import ValidationError

from engine.config import EventsConfig
from engine.events.batch import CatalogItem, Decoded, QuotedTombstone
from engine.events.codec import Decoder
from engine.events.item_codec import ItemDecoder
from tests.engine.events.payloads import DIM, EVENTS, KAFKA, NOW_MS, at, decode, event, reason, record

EVENT = {"item_id": "i", "user_id": "u"}
ITEM = {"item_id": "i", "title": "t"}
CLOUD = {"specversion": "1.0", "type": "shop.view", "source": "/shop", "id": "e1", "data": EVENT}
CHANGE = {"before": None, "after": EVENT, "op": "c", "ts_ms": NOW_MS, "source": {"table": "events"}}
SCHEMA = {"type": "struct", "fields": [], "optional": False}
MESSAGE = event(event_id="e2", time=at(NOW_MS - 1)).SerializeToString()
FRAME = b"\0\0\0\1\2"  # schema 258


def read(value: object, envelope: str, topic: str = KAFKA.events_topic, key: bytes | None = None) -> Decoded:
    payload = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    config = EVENTS.model_copy(update={"envelope": envelope})
    return Decoder(KAFKA, config, DIM).decode([record(payload, topic, key=key)])


@pytest.mark.parametrize(
    ("value", "envelope"),
    [
        (CLOUD, "cloudevents"),
        (CLOUD | {"data": json.dumps(EVENT)}, "cloudevents"),
        ({"specversion": "1.0", "data_base64": base64.b64encode(MESSAGE).decode()}, "cloudevents"),
        (CHANGE, "debezium"),
        (CHANGE | {"op": "r"}, "debezium"),
        (CHANGE | {"op": "u", "before": EVENT}, "debezium"),
        (CHANGE | {"after": json.dumps(EVENT)}, "debezium"),
        ({"schema": SCHEMA, "payload": CHANGE}, "debezium"),
        ({"payload": CHANGE}, "debezium"),
        ({"schema": SCHEMA, "payload": EVENT | {"__deleted": "false"}}, "debezium"),
        (FRAME + json.dumps(EVENT).encode(), "schema-registry"),
        (FRAME + b"\0" + MESSAGE, "schema-registry"),
        (FRAME + b"\4\2\4" + MESSAGE, "schema-registry"),
    ],
)  # fmt: skip
def test_an_event_in_an_envelope_is_read_by_the_setting_and_named_without_it(value: object, envelope: str) -> None:
    for setting in (envelope, f"cloudevents, debezium,{envelope}"):
        batch = read(value, setting).events
        assert (batch.item_id, batch.user_id) == (("i",), ("u",))
    said = reason(read(value, ""))
    assert f'{envelope} envelope, which events.envelope = "{envelope}" reads' in said
    # Records without an envelope are read all the same: Track and PrivacyService write them.
    assert read(MESSAGE, envelope).events.event_id == read(MESSAGE, "").events.event_id == ("e2",)


def test_a_frame_may_hold_another_envelope() -> None:
    batch = read(FRAME + json.dumps(CHANGE).encode(), "schema-registry,debezium").events
    assert batch.item_id == ("i",)
    assert "debezium envelope" in reason(read(FRAME + json.dumps(CHANGE).encode(), "schema-registry"))


def test_a_cloud_events_id_and_time_are_the_events_where_its_data_names_none() -> None:
    time = {"time": "2023-11-14T22:13:19Z"}
    batch = read(CLOUD | time, "cloudevents").events
    assert (batch.event_id, batch.time_ms.tolist()) == (("e1",), [NOW_MS - 1000])
    own = {"data": EVENT | {"eventId": "mine", "time": NOW_MS - 5}}
    batch = read(CLOUD | time | own, "cloudevents").events
    assert (batch.event_id, batch.time_ms.tolist()) == (("mine",), [NOW_MS - 5])


def test_a_cloud_event_gives_an_item_no_fields_that_items_do_not_have() -> None:
    """Each such record would be counted, and warned of, for an id and a time that its producer can't leave out."""
    value = CLOUD | {"time": "2026-03-31T08:00:00Z", "data": ITEM}
    reader = ItemDecoder(EVENTS.model_copy(update={"envelope": "cloudevents"}), DIM)
    item, unknown = reader.decode(record(json.dumps(value).encode(), KAFKA.items_topic))
    assert (item.item_id, item.title, list(unknown)) == ("i", "t", [])
    item, unknown = reader.decode(record(json.dumps(value | {"data": ITEM | {"time": 1}}).encode(), KAFKA.items_topic))
    assert list(unknown) == ["time"]  # which the producer's own data has


@pytest.mark.parametrize(
    ("value", "envelope", "said"),
    [
        (CLOUD | {"data": [1]}, "cloudevents", "data must be an object, got [1] in the cloudevents envelope"),
        (CLOUD | {"data": "text"}, "cloudevents", "data must be an object, got 'text' in the cloudevents envelope"),
        ({"specversion": "1.0", "data_base64": "?"}, "cloudevents", "data_base64 must be base64, got '?'"),
        (CHANGE | {"after": None}, "debezium", "after must be an object, got null in the debezium envelope"),
        (CHANGE | {"op": "t"}, "debezium", "op must be c, r, u or d, got 't' in the debezium envelope"),
        (CHANGE | {"op": "d", "before": EVENT}, "debezium", "op must not be d in the debezium envelope"),
        (CHANGE | {"after": {"id": 1}}, "debezium", "item_id must not be empty, got ''; unknown fields id"),
        (FRAME + b"\x06abc\x80", "schema-registry", "whose Avro is not read"),
        (FRAME + b"\x80", "schema-registry", "neither JSON nor protobuf is in it; Avro is not read"),
        (FRAME + b"\x01" + MESSAGE, "schema-registry", "neither JSON nor protobuf is in it; Avro is not read"),
        (FRAME + b"\0\x0a\x01e", "schema-registry", "framed for schema 258 of a registry, whose Avro is not read"),
        (FRAME + b"\0", "schema-registry", "got an envelope with nothing in it; the record is framed for schema 258"),
        ({"specversion": "1.0", "data_base64": ""}, "cloudevents", "got an envelope with nothing in it"),
        (FRAME + b"[1]", "schema-registry", "each record must hold one object, got a list of 1"),
    ],
)  # fmt: skip
def test_an_envelope_without_a_record_in_it_is_refused_with_the_reason(value: object, envelope: str, said: str) -> None:
    assert said in reason(read(value, envelope))


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (CHANGE | {"op": "d", "before": ITEM, "after": None}, None),
        (CHANGE | {"op": "d", "before": {"itemId": "i"}, "after": None}, b"other"),
        (CHANGE | {"op": "d", "before": None, "after": None}, b'{"item_id":"i"}'),
        ({"schema": SCHEMA, "payload": CHANGE | {"op": "d", "before": {}}}, b'{"schema":{},"payload":{"item_id":"i"}}'),
        (CHANGE | {"op": "d", "before": None}, b'"i"'),
        ({"schema": SCHEMA, "payload": ITEM | {"__deleted": "true"}}, None),
        (None, b'{"item_id":"i"}'),
        (None, b'{"itemId":"i"}'),
        (None, b'{"schema":{"type":"string"},"payload":"i"}'),
        (b"", b'{"schema":{},"payload":{"item_id":"i"}}'),
    ],
)
def test_a_deleted_row_deletes_the_item(value: object, key: bytes | None) -> None:
    assert read(value, "debezium", KAFKA.items_topic, key).items == [CatalogItem("i", deleted=True)]


def test_a_row_is_an_item_with_its_whole_numbers_and_times_in_any_unit() -> None:
    row = {"item_id": 7, "title": "t", "available_until": NOW_MS * 1000, "price": 9.9}
    for op in "cru":
        (item,) = read(CHANGE | {"op": op, "after": row}, "debezium", KAFKA.items_topic).items
        assert item == CatalogItem("7", "t", available_until_ms=NOW_MS)
    message = catalog_pb2.Item(item_id="i", title="t").SerializeToString()
    assert read(FRAME + b"\0" + message, "schema-registry", KAFKA.items_topic).items == [CatalogItem("i", "t")]


@pytest.mark.parametrize(
    ("key", "envelope", "said"),
    [
        (b'{"item_id":"i"}', "", 'got a JSON object; this is a debezium envelope, which events.envelope'),
        (b'{"id":"i"}', "debezium", "key must have item_id in the debezium envelope, got {'id': 'i'}"),
        (b'{"item_id":1.5}', "debezium", "key must have item_id in the debezium envelope"),
        (b'{"item_id":true}', "debezium", "key must have item_id in the debezium envelope"),
        (FRAME + b"\x80", "schema-registry", "key must be an item_id: neither JSON nor protobuf"),
    ],
)  # fmt: skip
def test_a_key_that_names_no_item_is_refused(key: bytes, envelope: str, said: str) -> None:
    assert said in reason(read(None, envelope, KAFKA.items_topic, key))


def test_a_key_that_is_a_json_string_may_be_either_id_until_the_fold_tells() -> None:
    want = [QuotedTombstone('"i"', deleted=True, named_id="i")]
    assert decode(record(None, KAFKA.items_topic, key=b'"i"')).items == want
    assert read(None, "schema-registry", KAFKA.items_topic, FRAME + b'"i"').items == want
    for literal in (b'"', b'""', b'"i', b'"i" ', b"'i'", b"7", b"null", b"{", b"[1]"):
        named = decode(record(None, KAFKA.items_topic, key=literal)).items
        if literal != b'"i" ':
            assert named == [CatalogItem(literal.decode(), deleted=True)], literal
    # 16 bytes are allowed: with its quotes this one is too long to be an id itself.
    long = b'"' + b"x" * 16 + b'"'
    assert decode(record(None, KAFKA.items_topic, key=long)).items == [CatalogItem("x" * 16, deleted=True)]
    assert "key must not have control characters" in reason(decode(record(None, KAFKA.items_topic, key=b'"\\n"')))


def test_an_envelope_that_does_not_exist_is_no_setting() -> None:
    with pytest.raises(ValidationError, match=r"envelope must be of cloudevents, .* got 'avro'"):
        EventsConfig(envelope="debezium,avro")
    assert EventsConfig(envelope=" debezium , cloudevents,").envelopes == ("debezium", "cloudevents")
    assert EventsConfig().envelopes == ()


def test_an_event_with_fields_of_an_envelope_beside_its_own_is_read() -> None:
    more = {"payload": {"op": "c", "after": {}}, "data": {}, "before": 1, "after": {}, "op": "c", "schema": 1}
    for envelope in ("", "cloudevents,debezium,schema-registry"):
        assert read(EVENT | more | {"specversion": "1.0"}, envelope).events.item_id == ("i",)
