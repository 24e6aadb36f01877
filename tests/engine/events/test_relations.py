"""Relations as records: what they may say, in protobuf and in JSON, and what becomes of them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from ousel.v1 import event_pb2
from pydantic import ValidationError

from engine.config import EventsConfig
from engine.events.codec import Decoder, validate_event
from tests.engine.events.both_ways import decoded_both_ways
from tests.engine.events.payloads import DIM, EVENTS, KAFKA, NOW_MS, at, decode, event, reason, record

KINDS = list(EVENTS.relations)
SOCIAL = {"user_id": "u", "target_user_id": "v"}
KNOWLEDGE = {"item_id": "i", "entity_id": "Ford"}


def payloads(fields: dict[str, Any]) -> tuple[bytes, bytes]:
    """The same event as protobuf and as JSON."""
    return event_pb2.Event(**fields).SerializeToString(), json.dumps(fields).encode()


@pytest.mark.parametrize("fields", [SOCIAL, SOCIAL | {"session_id": "s"}, KNOWLEDGE])
@pytest.mark.parametrize("said", [{}, {"kind": "friend", "value": 2.5, "ends": True, "event_id": "e"}])
def test_a_relation_reads_alike_from_protobuf_and_json(fields: dict[str, Any], said: dict[str, Any]) -> None:
    default = "follows" if "user_id" in fields else "has"
    for value in payloads(fields | said):
        decoded = decode(record(value, offset=3), record(event().SerializeToString(), offset=4))
        batch = decoded.events
        assert not decoded.rejected and batch.has_relations
        assert list(batch.target_id) == [fields.get("target_user_id") or fields["entity_id"], ""]
        assert (batch.user_id[0], batch.item_id[0]) == (fields.get("user_id", ""), fields.get("item_id", ""))
        assert batch.kind.tolist() == [KINDS.index(said.get("kind", default)), 0]
        assert batch.value.tolist() == [said.get("value", 1.0), 1.0]
        assert batch.ends.dtype == np.bool_ and batch.ends.tolist() == [said.get("ends", False), False]
    assert validate_event(event_pb2.Event(**fields | said), NOW_MS, EVENTS) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (SOCIAL | {"user_id": ""}, "user_id must not be empty where target_user_id is set, got ''"),
        (SOCIAL | {"user_id": "", "session_id": "s"}, "user_id must not be empty where target_user_id is set, got ''"),
        (SOCIAL | {"item_id": "i"}, "item_id must be empty where target_user_id is set, got 'i'"),
        (SOCIAL | {"entity_id": "x"}, "entity_id must be empty where target_user_id is set, got 'x'"),
        (SOCIAL | {"target_user_id": "u"}, "target_user_id must be another user than user_id, got 'u'"),
        (KNOWLEDGE | {"item_id": ""}, "item_id must not be empty where entity_id is set, got ''"),
        (KNOWLEDGE | {"user_id": "u"}, "user_id must be empty where entity_id is set, got 'u'"),
        (KNOWLEDGE | {"session_id": "s"}, "session_id must be empty where entity_id is set, got 's'"),
        ({"user_id": "u", "item_id": "i", "ends": True}, "target_user_id or entity_id must be set where ends is true"),
        (SOCIAL | {"forget": True}, "target_user_id must be empty where forget is true, got 'v'"),
        (KNOWLEDGE | {"forget": True}, "entity_id must be empty where forget is true, got 'Ford'"),
        ({"user_id": "u", "forget": True, "ends": True}, "ends must be false where forget is true, got true"),
        (SOCIAL | {"kind": "view"}, f"kind must be one of {KINDS}, got 'view'"),
        ({"user_id": "u", "item_id": "i", "kind": "friend"}, "kind must be one of ['view', 'cart'], got 'friend'"),
        (SOCIAL | {"target_user_id": "x" * 17}, "target_user_id must have at most 16 bytes in UTF-8, got 17: "),
        (KNOWLEDGE | {"entity_id": "ü" * 9}, "entity_id must have at most 16 bytes in UTF-8, got 18: "),
        (KNOWLEDGE | {"entity_id": "a\0"}, "entity_id must not have control characters, got 'a\\x00'"),
        (KNOWLEDGE | {"item_id": "a\n"}, "item_id must not have control characters, got 'a\\n'"),
        (SOCIAL | {"value": -1.0}, "value must be a finite number >= 0, got -1.0"),
    ],
)
def test_a_relation_that_breaks_a_rule_is_rejected_alike_everywhere(fields: dict[str, Any], said: str) -> None:
    for value in payloads(fields):
        assert said in reason(decode(record(value)))
    message = event_pb2.Event(**fields)
    assert validate_event(message, NOW_MS, EVENTS, may_forget=True) == reason(decode(record(payloads(fields)[0])))


def test_time_and_value_of_a_relation_have_the_bounds_of_all_events() -> None:
    late = event_pb2.Event(**SOCIAL, time=at(NOW_MS + 60_001))
    assert "time must lie at most 60 s (events.max_future_s) ahead of its record" in reason(
        decode(record(late.SerializeToString()))
    )
    endless = event_pb2.Event(**SOCIAL, value=math.inf)
    assert "value must be a finite number >= 0, got inf" in reason(decode(record(endless.SerializeToString())))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target_user_id": 5.5}, "target_user_id must be text or a whole number below 2**64, got 5.5"),
        ({"entity_id": ["x"]}, "entity_id must be text or a whole number below 2**64, got ['x']"),
        ({"ends": "yes"}, "ends must be true or false, got 'yes'"),
    ],
)
def test_json_of_the_wrong_type_is_rejected(fields: dict[str, Any], said: str) -> None:
    assert reason(decode(record(json.dumps(SOCIAL | fields).encode()))) == said


def test_relations_among_plain_events_keep_their_order_in_a_long_batch() -> None:
    values = [payloads([SOCIAL, KNOWLEDGE][n % 2])[0] if n % 5 == 0 else event().SerializeToString() for n in range(50)]
    batch = decoded_both_ways(Decoder(KAFKA, EVENTS, DIM), [record(v, offset=n) for n, v in enumerate(values)]).events
    assert batch.offset.tolist() == list(range(50))
    assert [bool(target) for target in batch.target_id] == [n % 5 == 0 for n in range(50)]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"relations": {}}, "relations must be 1 to 127 names, got 0"),
        ({"relations": {f"r{n}": 1.0 for n in range(128)}}, "relations must be 1 to 127 names, got 128"),
        ({"relations": {"has": 1.0}}, "default_user_relation must be one of ['has'], got 'follows'"),
        ({"default_item_relation": "owns"}, "default_item_relation must be one of"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        EventsConfig(**fields)
    assert said in str(error.value)
