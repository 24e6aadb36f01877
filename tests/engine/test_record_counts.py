from __future__ import annotations

import logging

import pytest
from prometheus_client import REGISTRY

from engine import record_counts as module
from engine.config import EventsConfig, KafkaConfig, StateConfig
from engine.events.batch import Flaw, Record
from engine.events.codec import Decoder
from engine.limited_log import LimitedLog
from engine.record_counts import RecordCounts
from engine.state.state import State

KAFKA = KafkaConfig()
TOPIC = KAFKA.events_topic


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"topic": TOPIC} | labels) or 0.0


def test_damaged_records_count_each_and_one_line_names_the_newest_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_limited", LimitedLog(logging.getLogger(), schedule=lambda *_: None))
    state = State(StateConfig(max_users=8, max_items=8, content_dim=8), EventsConfig())
    counts = RecordCounts(TOPIC, KAFKA.items_topic)
    flaw = Flaw(9, 5, f"{TOPIC}[0]@5-9 can't be read: a wrong checksum")
    records = [Record(TOPIC, 0, 4, 1, None, b"\xff"), Record(TOPIC, 0, 5, -1, None, None, flaw)]
    batch = Decoder(KAFKA, EventsConfig(), 0).decode(records)
    before = count("ousel_records_polled_total"), count("ousel_records_total", outcome="dead_letter")
    counts.polled(records, batch, state)
    counts.folded(batch, state.fold(batch), state)
    assert count("ousel_records_polled_total") - before[0] == 6
    assert count("ousel_records_total", outcome="dead_letter") - before[1] == 6
    assert counts.dead_lettered == 6
    (line,) = caplog.messages
    assert line.startswith(f"record {TOPIC}[0]@5 is a dead letter (`ousel-engine dead-letters`): ")
    assert line.endswith("a wrong checksum (6 of these at once)")
    # The log hands the same records over again.
    counts.polled(records, batch, state)
    assert count("ousel_records_total", outcome="redelivered") >= 6
    assert counts.dead_lettered == 6
