from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from ousel.v1 import catalog_pb2

from engine.events.batch import CatalogItem
from engine.events.codec import Decoder
from tests.engine.events.payloads import (
    EVENTS,
    KAFKA,
    NOW_MS,
    at,
    decode,
    decode_item,
    reason,
    record,
)


def test_an_item_is_decoded_whole() -> None:
    message = catalog_pb2.Item(
        item_id="i",
        title="t" * 1024,
        categories=["a", "b"],
        features=[1.0, 2.0, 0.5],
        available_from=at(NOW_MS + 5),
        available_until=at(NOW_MS + 6),
        attributes={"a": "b"},
    )
    expected = CatalogItem(
        "i", "t" * 1024, ("a", "b"), (1.0, 2.0, 0.5), NOW_MS + 5, NOW_MS + 6, attributes=(("a", "b"),)
    )
    assert decode_item(message).items == [expected]
    fields = {"item_id": "i", "title": "t" * 1024, "categories": ["a", "b"], "features": [1, 2.0, 0.5]}
    fields |= {"available_from": NOW_MS + 5, "available_until": "2023-11-14T22:13:20.006Z", "attributes": {"a": "b"}}
    assert decode(record(json.dumps(fields).encode(), KAFKA.items_topic)).items == [expected]


def test_deletion_is_a_field_or_a_record_without_a_value() -> None:
    assert decode_item(catalog_pb2.Item(item_id="i", deleted=True)).items == [CatalogItem("i", deleted=True)]
    for value in (None, b""):
        tombstone = record(value, KAFKA.items_topic, key="ü".encode())
        assert decode(tombstone).items == [CatalogItem("ü", deleted=True)]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "key must be the item_id where a record has no value, got none"),
        (b"", "key must be the item_id where a record has no value, got none"),
        (b"\xff", "key must be an item_id in UTF-8, got b'\\xff'"),
        (b"\n", "key must not have control characters, got '\\n'"),
        (b"k" * 17, "key must have at most 16 bytes in UTF-8, got 17"),
    ],
)
def test_a_tombstone_needs_an_item_id_as_its_key(key: bytes | None, said: str) -> None:
    assert said in reason(decode(record(None, KAFKA.items_topic, key=key)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"item_id": "", "title": "t"}, "item_id must not be empty, got ''"),
        ({"item_id": "x" * 17}, "item_id must have at most 16 bytes in UTF-8, got 17"),
        ({"title": "t" * 1025}, "title must have at most 1024 characters, got 1025"),
        ({"categories": ["c"] * 65}, "categories must be at most 64, got 65"),
        ({"categories": ["a", "c" * 17]}, "categories[1] must have at most 16 bytes in UTF-8, got 17"),
        ({"categories": ["a", "b", "\x00"]}, "categories[2] must not have control characters"),
        ({"categories": [""]}, "categories[0] must not be empty, got ''"),
        ({"features": [1.0, 2.0]}, "features must have 3 values, got 2"),
        ({"features": [1.0, math.nan, 2.0]}, "features[1] must be finite, got nan"),
        ({"features": [math.inf, 1.0, -math.inf]}, "features[0] must be finite, got inf"),
        (
            {"available_from": at(NOW_MS), "available_until": at(NOW_MS)},
            "available_from must be before available_until, got 2023-11-14T22:13:20.000Z and 2023-11-14T22:13:20.000Z",
        ),
        (
            {"available_until": at(NOW_MS // 1000)},
            "available_until must not be before 1990-01-01T00:00:00.000Z (events",
        ),
        ({"available_until": Timestamp()}, "an item that is not bounded on this side leaves the field out"),
        ({"available_from": Timestamp(seconds=-(2**60))}, "available_from must not be before 1990"),
    ],
)
def test_an_item_that_breaks_a_rule_is_rejected(fields: dict[str, Any], said: str) -> None:
    assert said in reason(decode_item(catalog_pb2.Item(**({"item_id": "i"} | fields))))


def test_features_are_refused_where_none_are_configured() -> None:
    item = catalog_pb2.Item(item_id="i", features=[1.0]).SerializeToString()
    decoded = Decoder(KAFKA, EVENTS, 0).decode([record(item, KAFKA.items_topic)])
    assert reason(decoded) == "features must have no values, got 1"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"categories": "a"}, "categories must be a list, got 'a'"),
        ({"categories": ["a", 1.5]}, "categories[1] must be text or a whole number below 2**64, got 1.5"),
        ({"features": [1, "2x", 3]}, "features[1] must be a number, got '2x'"),
        ({"attributes": []}, "attributes must be an object, got []"),
        ({"attributes": {"a": ["x"]}}, "attributes['a'] must be text, a number, true or false, got ['x']"),
        ({"features": {"0": 1}}, "features must be a list, got {'0': 1}"),
        ({"deleted": 1}, "deleted must be true or false, got 1"),
        ({"available_from": {}}, "available_from must be RFC 3339 text with a zone, such as"),
    ],
)
def test_an_item_in_json_of_the_wrong_type_is_rejected(fields: dict[str, Any], said: str) -> None:
    payload = json.dumps({"item_id": "i"} | fields).encode()
    assert said in reason(decode(record(payload, KAFKA.items_topic)))
