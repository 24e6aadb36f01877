"""Fields that nothing reads refuse no record, and are counted and named all the same."""

from __future__ import annotations

import json
import logging

import pytest
from ousel.v1 import catalog_pb2
from prometheus_client import REGISTRY

from engine.events.batch import Record
from engine.events.codec import Decoder
from engine.events.unread import UnreadFields
from engine.limited_log import LimitedLog
from tests.engine.events.payloads import DIM, EVENTS, KAFKA, event, record

LOG = logging.getLogger("tests.unread")


def counted(topic: str) -> float:
    return REGISTRY.get_sample_value("ousel_unknown_fields_total", {"topic": topic}) or 0.0


def fields(**more: object) -> bytes:
    return json.dumps({"item_id": "i", "user_id": "u"} | more).encode()


@pytest.mark.parametrize("padding", [0, 200])
def test_each_record_with_such_a_field_counts_once_by_its_topic_accepted_or_not(padding: int) -> None:
    events, items = KAFKA.events_topic, KAFKA.items_topic
    usual = [record(event().SerializeToString(), events) for _ in range(padding)]
    bearing = [
        record(fields(visitorid="v", x=1), events),
        record(fields(itemId="i", attributes={"a": "b"}), events),
        record(event(attributes={"a": "b"}).SerializeToString(), events),
        record(event().SerializeToString() + b"\x7a\x01x", events),
        record(fields(item_id="", x=1), events),
        record(fields(item_id=[], x=1), events),
        record(json.dumps({"item_id": "i", "price": 5}).encode(), items),
        record(catalog_pb2.Item(item_id="i").SerializeToString() + b"\x7a\x01x", items),
    ]
    plain = [
        record(fields(), events),
        record(fields(kind=None), events),
        record(b"\xff", events),
        record(json.dumps({"item_id": "i", "attributes": {"a": "b"}}).encode(), items),
        record(None, items, key=b"i"),
    ]
    before = counted(events), counted(items)
    decoded = Decoder(KAFKA, EVENTS, DIM).decode([*usual, *bearing, *plain])
    assert (counted(events) - before[0], counted(items) - before[1]) == (6, 2)
    # Law 8: they are counted beside what becomes of them, not instead of it.
    assert len(decoded.events) + len(decoded.items) + len(decoded.rejected) == padding + len(bearing) + len(plain)
    assert len(decoded.rejected) == 3


def test_one_line_names_the_fields_and_a_record_that_has_them(caplog: pytest.LogCaptureFixture) -> None:
    unread = UnreadFields(LimitedLog(LOG, clock=lambda: 0.0, schedule=lambda delay_s, run: None))
    unread.note(Record("t", 3, 7, 0, None, b""), ["visitorid", "a\n"])
    unread.note(Record("t", 3, 8, 0, None, b""), ["visitorid", *map(str, range(10))])
    unread.report()
    (line,) = caplog.messages
    assert "records of t bear fields that nothing reads, and that are ignored: visitorid, 'a\\n', 0, 1" in line
    assert "and 4 more; such a record is at partition 3, offset 7" in line and line.endswith("(2 of these at once)")
    unread.report()
    unread.note(Record("t", 3, 9, 0, None, b""), ["other"])
    unread.report()
    assert len(caplog.messages) == 1  # The next one has to wait for its interval.
