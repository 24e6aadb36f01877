"""Records for the tests of the decoder, and a decoder with small limits."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from ousel.v1 import catalog_pb2, event_pb2

from engine.config import EventsConfig, KafkaConfig
from engine.events.batch import Decoded, Record
from engine.events.codec import Decoder

KAFKA = KafkaConfig()
EVENTS = EventsConfig(kinds={"view": 1.0, "cart": 2.0}, default_kind="view", max_id_bytes=16, max_future_s=60)
DIM = 3
NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def record(value: bytes | None, topic: str = KAFKA.events_topic, offset: int = 0, **fields: Any) -> Record:
    given = {"partition": 1, "timestamp_ms": NOW_MS, "key": None} | fields
    return Record(topic=topic, offset=offset, value=value, **given)


def decode(*records: Record) -> Decoded:
    return Decoder(KAFKA, EVENTS, DIM).decode(records)


def decode_item(item: catalog_pb2.Item) -> Decoded:
    return decode(record(item.SerializeToString(), KAFKA.items_topic))


def at(ms: int) -> Timestamp:
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def reason(decoded: Decoded) -> str:
    (rejection,) = decoded.rejected
    assert len(decoded.events) == len(decoded.items) == 0
    return rejection.reason


def event(**fields: Any) -> event_pb2.Event:
    return event_pb2.Event(**({"user_id": "u", "item_id": "i"} | fields))
