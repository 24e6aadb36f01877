"""100,000 records that no producer should write, through the decoder and the fold."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp
from ousel.v1 import catalog_pb2, event_pb2

from engine.config import EventsConfig, KafkaConfig, StateConfig
from engine.events.batch import Record
from engine.events.codec import Decoder
from engine.state.state import State
from tests.engine.events.both_ways import decoded_both_ways
from tests.engine.events.payloads import NOW_MS

KAFKA = KafkaConfig()
EVENTS = EventsConfig()
COUNT, BATCH = 100_000, 4096
FEATURES = 4

_TEXTS = [
    "",
    "a",
    "A",
    "user-7",
    "é",
    "e\u0301",
    "\0",
    "\x7f",
    "\n",
    "\U0001f426",
    "x" * 256,
    "x" * 257,
    " ",
    '"',
    "\\",
]
_NUMBERS = [0, 1, -1, 2.5, 1e38, 1e39, 1e308, -0.0, 2**31, 2**63 - 1, -(2**63), 2**64 - 1]
_TIMES = [
    NOW_MS,
    0,
    -1,
    NOW_MS + 10**10,
    2**62,
    "2023-11-14T22:13:20Z",
    "2023-13-14T22:13:20Z",
    "9999-12-31T23:59:59Z",
    "now",
]
_WEIRD = [None, True, [], {}, [[]], {"a": {"b": []}}, ["a"] * 70, [1.0] * FEATURES, {"k": "v"}, "\ud800"]
_NAMES = [*event_pb2.Event.DESCRIPTOR.fields_by_name, *catalog_pb2.Item.DESCRIPTOR.fields_by_name, "other", ""]


def _id(draw: random.Random) -> str:
    if draw.random() < 0.002:
        return draw.choice("aé\0") * draw.randrange(1, 100_000)
    return draw.choice(_TEXTS) if draw.random() < 0.08 else f"id-{draw.randrange(200)}"


def _time(draw: random.Random) -> Timestamp:
    if draw.random() < 0.9:
        return Timestamp(seconds=NOW_MS // 1000 - draw.randrange(10**6), nanos=draw.randrange(10**9))
    return Timestamp(seconds=draw.randrange(-(2**63), 2**63), nanos=draw.randrange(-(2**31), 2**31))


def _event(draw: random.Random) -> bytes:
    event = event_pb2.Event(event_id=_id(draw), user_id=_id(draw), session_id=_id(draw), item_id=_id(draw))
    if draw.random() < 0.8:
        event.kind = draw.choice(list(EVENTS.kinds))
    if draw.random() < 0.8:
        event.time.CopyFrom(_time(draw))
    if draw.random() < 0.2:
        event.value = draw.choice([0.0, 1.0, 2.5, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45])
    if draw.random() < 0.05:
        event.attributes[_id(draw)] = _id(draw)
    if draw.random() < 0.05:
        event.forget = True
        event.item_id = draw.choice(["", "i"])
    if draw.random() < 0.1:
        _relate(draw, event)
    return event.SerializeToString()


def _relate(draw: random.Random, event: event_pb2.Event) -> None:
    """Makes a relation of it, most times a good one."""
    if draw.random() < 0.5:
        event.item_id, event.target_user_id = draw.choice(["", "", "", "i"]), _id(draw)
    else:
        event.entity_id = _id(draw)
        if draw.random() < 0.8:
            event.user_id = event.session_id = ""
    event.kind = draw.choice(["", *EVENTS.relations, "view"])
    event.ends = draw.random() < 0.3


def _item(draw: random.Random) -> bytes:
    item = catalog_pb2.Item(item_id=_id(draw), title=_id(draw), categories=[_id(draw)], deleted=draw.random() < 0.1)
    if draw.random() < 0.5:
        item.features[:] = [draw.choice([0.0, 1.0, float("nan"), 3e38]) for _ in range(FEATURES)]
    if draw.random() < 0.5:
        item.available_from.CopyFrom(_time(draw))
    return item.SerializeToString()


def _json(draw: random.Random) -> bytes:
    """An object with the right names and any values; some names twice."""
    fields = []
    for name in draw.sample(_NAMES, draw.randrange(8)) + draw.choices(_NAMES, k=draw.randrange(2)):
        value = draw.choice(draw.choice([_TEXTS, _TEXTS, _NUMBERS, _TIMES, _WEIRD]))
        fields.append(f"{json.dumps(name)}:{json.dumps(value)}")
    return ("{" + ",".join(fields) + "}").encode()


def _good_json(draw: random.Random) -> bytes:
    ids = draw.choice([("user_id", "item_id")] * 8 + [("user_id", "target_user_id"), ("item_id", "entity_id")])
    fields = {name: _id(draw) for name in ids} | {"time": draw.choice(_TIMES), "value": draw.choice(_NUMBERS)}
    return json.dumps(fields, ensure_ascii=draw.random() < 0.5).encode()


def _bytes(draw: random.Random) -> bytes:
    return draw.randbytes(draw.randrange(60))


def _deep(draw: random.Random) -> bytes:
    return draw.choice([b'{"a":', b"[", b"\x0b", b"{"]) * draw.randrange(3000)


def _mutated(draw: random.Random, payload: bytes) -> bytes:
    changed = bytearray(payload)
    for _ in range(draw.randrange(1, 4)):
        start = draw.randrange(len(changed) + 1)
        changed[start : start + draw.randrange(4)] = draw.randbytes(draw.randrange(4))
    return bytes(changed)


_MAKERS: list[Callable[[random.Random], bytes]] = [_event] * 8 + [_item, _json, _good_json, _bytes]


def _batches(seed: int) -> Iterator[list[Record]]:
    draw = random.Random(seed)
    for first in range(0, COUNT, BATCH):
        batch = []
        for offset in range(first, min(first + BATCH, COUNT)):
            payload: bytes | None = (_deep if draw.random() < 0.001 else draw.choice(_MAKERS))(draw)
            if draw.random() < 0.3:
                payload = _mutated(draw, payload or b"")
            if draw.random() < 0.01:
                payload = None
            topic = draw.choices([KAFKA.events_topic, KAFKA.items_topic, "other"], [20, 2, 1])[0]
            time_ms = draw.choice([-1, 0, 2**62]) if draw.random() < 0.05 else NOW_MS + offset
            key = draw.choice([None, b"", b"id-3", b"\xff"])
            batch.append(Record(topic, offset % 4, offset, time_ms, key, payload))
        yield batch


def test_every_record_is_folded_or_rejected_with_a_reason() -> None:
    decoder = Decoder(KAFKA, EVENTS, FEATURES)
    state = State(StateConfig(features_dim=FEATURES), EVENTS, partitions=8)
    outcomes = {"events": 0, "items": 0, "rejected": 0, "relations": 0}
    for batch in _batches(seed=4):
        decoded = decoded_both_ways(decoder, batch)
        assert len(decoded.events) + len(decoded.items) + len(decoded.rejected) == len(batch)
        assert decoded.positions == {(record.topic, record.partition): record.offset + 1 for record in batch}
        for rejection in decoded.rejected:
            assert rejection.reason.isprintable() and 0 < len(rejection.reason) < 1000
        state.fold(decoded)
        relations = sum(target != "" for target in decoded.events.target_id)
        outcomes["relations"] += relations
        outcomes["events"] += len(decoded.events) - relations
        outcomes["items"] += len(decoded.items)
        outcomes["rejected"] += len(decoded.rejected)
    assert sum(outcomes.values()) == COUNT
    # None of the four is there by accident only.
    assert min(outcomes.values()) > COUNT // 200, outcomes
    # Ids that were accepted are short, and there are only so many: what was refused left nothing behind.
    assert state.user_count + len(state.items) < 5000


def test_ids_are_compared_byte_by_byte() -> None:
    """Case and Unicode form make another id."""
    names = ["a", "A", "é", "e\u0301"]
    payloads = [event_pb2.Event(user_id=name, item_id="i").SerializeToString() for name in names]
    payloads += [json.dumps({"user_id": name, "item_id": "i"}).encode() for name in names]
    records = [Record(KAFKA.events_topic, 0, at, NOW_MS, None, payload) for at, payload in enumerate(payloads)]
    assert list(decoded_both_ways(Decoder(KAFKA, EVENTS, FEATURES), records).events.user_id) == names * 2
