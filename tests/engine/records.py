"""Records as producers write them."""

from __future__ import annotations

from ousel.v1 import catalog_pb2, event_pb2

from engine.config import Config
from engine.events.batch import Record

BEGIN_MS = 1_700_000_000_000


def event_record(config: Config, partition: int, offset: int, *, time_ms: int = 0, **fields: str | float) -> Record:
    """One record of the events topic, `time_ms` after the tests' log began."""
    event = event_pb2.Event(**fields)
    event.time.FromMilliseconds(BEGIN_MS + time_ms)
    return Record(config.kafka.events_topic, partition, offset, BEGIN_MS + time_ms, None, event.SerializeToString())


def item_record(config: Config, offset: int, item_id: str, **fields: str | bool) -> Record:
    """One record of the items topic."""
    item = catalog_pb2.Item(item_id=item_id, **fields)
    return Record(config.kafka.items_topic, 0, offset, 0, item_id.encode(), item.SerializeToString())
