"""Calls that wait for records, at a real engine through real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing

import ousel
import pytest

from engine.config import KafkaConfig
from engine.events.log_ends import KafkaLogEnds
from engine.events.topics import ensure_topics
from tests.integration.engines import DEADLINE_S, ITEMS, EngineProcess, load, purchase, running, until, write

pytestmark = pytest.mark.integration

CALLS = 10_000
PATIENT = {"OUSEL_SERVING__MAX_RECORD_WAIT_MS": "600000"}


def metric(engine: EngineProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics", timeout=DEADLINE_S) as page:
        found = re.search(rf"^{re.escape(name)} (\S+)$", page.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_ten_thousand_waiting_calls_keep_no_other_call_from_its_answer(start, tmp_path):
    with start(tmp_path / "broker") as broker:
        kafka = KafkaConfig(**broker.client_settings(), events_partitions=3)
        ensure_topics(kafka)
        load(kafka)
        with (
            running(kafka, tmp_path / "engine.log", **PATIENT) as engine,
            ousel.Client(engine.address, DEADLINE_S) as client,
        ):
            lost = ousel.Position(kafka.events_topic, 0, 10**9)
            with pytest.raises(ousel.OutOfRange, match=r"after.offset must be below the end of .*\[0\], which is \d+"):
                client.recommend("u1", k=5, after=lost)  # the broker says so
            os.kill(broker.pid, signal.SIGSTOP)  # from now on it can't be asked
            try:
                command = [sys.executable, "-m", "tests.integration.callers", engine.address, str(CALLS), "20"]
                with subprocess.Popen(
                    [*command, lost.topic, str(lost.partition), str(lost.offset)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                ) as callers:  # fmt: skip
                    assert callers.stdout.readline() == "started\n"
                    until(lambda: metric(engine, "ousel_calls_waiting") == CALLS)
                    for user in range(10):
                        assert client.recommend(f"u{user}", k=5).items
                    with pytest.raises(ousel.ResourceExhausted, match="at most 10000 calls may wait for a record"):
                        client.recommend("u1", k=5, after=lost)
                    os.kill(broker.pid, signal.SIGCONT)
                    until(lambda: metric(engine, "ousel_calls_waiting") == 0)
                    until(lambda: metric(engine, 'ousel_calls_waited_total{how="no_record"}') == CALLS + 1)
                    ended = json.loads(callers.communicate("\n", DEADLINE_S)[0])
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            assert ended == {"OUT_OF_RANGE": CALLS}
            tracked = client.track(ITEMS[3], "u1", kind="purchase")
            assert client.recommend("u1", k=5, after=tracked.position).items


def test_the_broker_says_where_partitions_end_now(kafka_config):
    topic = kafka_config.events_topic
    with closing(KafkaLogEnds(kafka_config)) as ends:
        assert ends.ask([(topic, 0), (topic, 2)]) == {(topic, 0): 0, (topic, 2): 0}
        positions = write(kafka_config, [purchase(f"u{at}", ITEMS[at], f"e{at}") for at in range(20)])
        expected = {(topic, partition): 0 for partition in range(3)}
        for position in positions:
            expected[topic, position.partition] = max(expected[topic, position.partition], position.offset + 1)
        assert ends.ask(expected) == expected
