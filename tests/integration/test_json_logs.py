"""An engine that logs as JSON: every line of its two processes is an object, from the start to the end."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaProducer

from engine.config import KafkaConfig
from engine.events.connection import connection_settings
from tests.integration.engines import DEADLINE_S, running, until

pytestmark = pytest.mark.integration


def test_every_line_is_an_object_and_a_refused_record_has_its_place_in_fields(
    kafka_config: KafkaConfig, tmp_path: Path
) -> None:
    with running(kafka_config, tmp_path / "engine.log", OUSEL_LOG__FORMAT="json") as engine:
        with closing(KafkaProducer(**connection_settings(kafka_config))) as producer:
            producer.send(kafka_config.events_topic, b"no event", partition=1).get(DEADLINE_S)
        until(lambda: "is a dead letter" in engine.log(), engine.log)
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(DEADLINE_S) == 0
    lines = [
        json.loads(line) for line in engine.log().splitlines() if not line.startswith("ousel-engine: functions are")
    ]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    (letter,) = (line for line in lines if "is a dead letter" in line["message"])
    assert (letter["topic"], letter["partition"], letter["offset"]) == (kafka_config.events_topic, 1, 0)
