"""Ids that broken producers send for everybody make no person."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ousel.v1 import event_pb2

from engine.config import EventsConfig
from engine.events.batch import Record
from engine.events.codec import Decoder, validate_event
from engine.events.records import Records
from engine.events.wire import EventParser
from tests.engine.events.both_ways import decoded_both_ways
from tests.engine.events.payloads import DIM, KAFKA, NOW_MS, record

CONFIG = EventsConfig()
WRITTEN = ["null", "NULL", "undefined", "None", "NaN", "[object Object]", " null", "nil ", "0", " ", "GUEST"]
WRITTEN += ["00000000-0000-0000-0000-000000000000", "0" * 32]
GOOD = {"user_id": "user-1", "session_id": "session-1", "item_id": "i"}


def as_json(**fields: Any) -> Record:
    return record(json.dumps(GOOD | fields).encode())


def as_protobuf(**fields: Any) -> Record:
    return record(event_pb2.Event(**GOOD | fields).SerializeToString())


def reason(one: Record, config: EventsConfig = CONFIG) -> str:
    (rejection,) = decoded_both_ways(Decoder(KAFKA, config, DIM), [one]).rejected
    return rejection.reason


@pytest.mark.parametrize("field", ["user_id", "session_id"])
@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("encoded", [as_json, as_protobuf])
def test_an_event_of_nobody_is_refused_with_the_field_and_the_setting(encoded, written, field):
    assert reason(encoded(**{field: written})) == (
        f"{field} must name somebody, got {written!r}, which events.placeholder_ids lists as naming nobody"
    )


@pytest.mark.parametrize("field", ["user_id", "session_id"])
def test_track_refuses_it_by_the_same_rule(field):
    problem = validate_event(event_pb2.Event(**GOOD | {field: "undefined"}), NOW_MS, CONFIG)
    assert problem is not None and field in problem and "events.placeholder_ids" in problem


@pytest.mark.parametrize("field", ["user_id", "target_user_id"])
def test_nobody_follows_or_is_followed(field):
    ids = {"user_id": "user-1", "target_user_id": "user-2", "kind": "follows"} | {field: "null"}
    assert field in reason(record(json.dumps(ids).encode()))


def test_whoever_was_folded_under_such_an_id_can_still_be_forgotten():
    for ids in ({"user_id": "null"}, {"session_id": "undefined"}):
        assert validate_event(event_pb2.Event(**ids, forget=True), NOW_MS, CONFIG, may_forget=True) is None


def test_ids_that_only_look_like_one_are_kept_and_read_at_once_where_they_are_usual():
    kept = ["10", "00", "nullius", "annul", "undefined-7", "a null", "none-1", "user", "1", "0000-1"]
    records = [as_protobuf(user_id=one, session_id=f"s-{one}", event_id=f"e-{one}") for one in kept]
    decoded = decoded_both_ways(Decoder(KAFKA, CONFIG, DIM), records)
    assert list(decoded.events.user_id) == kept and not decoded.rejected
    rest = EventParser(KAFKA.events_topic, CONFIG).parse(Records.packed(records)).rest
    assert [kept[at] for at in rest.tolist()] == []


def test_random_ids_in_hexadecimal_are_read_at_once():
    draw = random.Random(0)
    names = [f"{draw.getrandbits(128):032x}" for _ in range(3000)]
    records = [as_protobuf(event_id=one, user_id=one[::-1], session_id=one) for one in names]
    # With the first and the last character alone, some 30 of them would be left to the library.
    assert len(EventParser(KAFKA.events_topic, CONFIG).parse(Records.packed(records)).rest) < 5


def test_an_item_may_be_called_so_since_it_is_no_person():
    assert len(decoded_both_ways(Decoder(KAFKA, CONFIG, DIM), [as_protobuf(item_id="0")]).events) == 1


def test_an_event_id_of_nothing_is_no_id_and_a_number_is_one():
    given = {"undefined": "", "null": "", "NaN": "", "0": "0", "e1": "e1", "": ""}
    for encoded in (as_json, as_protobuf):
        decoded = decoded_both_ways(Decoder(KAFKA, CONFIG, DIM), [encoded(event_id=one) for one in given])
        assert list(decoded.events.event_id) == [*given.values()]


def test_the_setting_lists_them_and_may_be_empty():
    own = EventsConfig(placeholder_ids=(" Nemo ", "né"))
    assert own.placeholder_ids == ("nemo", "né")
    for written in ("NEMO", "NÉ"):
        assert "user_id" in reason(as_protobuf(user_id=written), own)
    decoder = Decoder(KAFKA, own, DIM)
    assert len(decoded_both_ways(decoder, [as_protobuf(user_id="null"), as_json(session_id="0")]).events) == 2
    none = Decoder(KAFKA, EventsConfig(placeholder_ids=()), DIM)
    assert len(decoded_both_ways(none, [as_protobuf(user_id="null"), as_json(user_id=" ")]).events) == 2
    with pytest.raises(ValueError, match="no placeholder may be empty"):
        EventsConfig(placeholder_ids=("null", " "))


ids = st.sampled_from(["", "u", "nul", "null", "NULL", " null", "0", "Nil", "nile", "[object Object]", "é", "none "])


@given(fields=st.lists(st.tuples(ids, ids, ids), min_size=1, max_size=8))
def test_numpy_and_the_library_agree_on_every_id(fields):
    records = [as_protobuf(event_id=event, user_id=user, session_id=session) for event, user, session in fields]
    decoded_both_ways(Decoder(KAFKA, CONFIG, DIM), records)
