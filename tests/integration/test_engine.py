"""The engine as users run it: a process of its own, a real broker, gRPC over a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request

import grpc
import ousel
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from kafka import KafkaConsumer
from ousel.v1 import event_pb2
from prometheus_client.parser import text_string_to_metric_families

from engine.config import KafkaConfig, StateConfig
from engine.events.connection import connection_settings
from engine.model.weights import encode_weights
from tests.engine.models import small_weights
from tests.integration.engines import (
    DEADLINE_S,
    ITEMS,
    EngineProcess,
    load,
    purchase,
    push,
    running,
    until,
    wait_until_it_serves,
    write,
)

pytestmark = pytest.mark.integration


def test_a_click_changes_the_next_list_before_and_after_a_model(kafka_config, tmp_path):
    load(kafka_config)
    with running(kafka_config, tmp_path / "engine.log") as engine, ousel.Client(engine.address, DEADLINE_S) as client:
        before = client.recommend("u2", k=5)
        assert (before.origin, before.known, before.model_version) == (ousel.Origin.COVISITATION, True, 0)
        assert before.items[0].title.startswith("Title ")
        unknown = client.recommend("somebody new", k=5)
        assert (unknown.origin, unknown.known) == (ousel.Origin.POPULARITY, False)

        weights = encode_weights(small_weights(ITEMS, content_dim=StateConfig().content_dim))
        assert push(engine.address, weights, 1).version == 1
        wait_until_it_serves(client, 1)
        with client.stream("u1", k=5) as updates:
            lists = iter(updates)
            first = next(lists)
            assert (first.cause, first.list.origin, first.list.model_version) == (
                ousel.Cause.SUBSCRIBED, ousel.Origin.MODEL, 1,
            )  # fmt: skip
            tracked = client.track("i39", "u1", kind="purchase")
            second = next(lists)
            assert second.cause == ousel.Cause.EVENTS
            assert [(item.item_id, item.score) for item in first.list.items] != [
                (item.item_id, item.score) for item in second.list.items
            ]
            reflected = {at.partition: at.offset for at in second.list.reflects}
            assert reflected[tracked.position.partition] >= tracked.position.offset

            push(engine.address, encode_weights(small_weights(ITEMS, 7, content_dim=StateConfig().content_dim)), 2)
            third = next(lists)
            assert (third.cause, third.list.model_version) == (ousel.Cause.MODEL, 2)

        status = client.status()
        assert (status.events_folded, status.items, status.events_dead_lettered) == (201, 40, 0)
        assert status.model_versions == (1, 2)
        assert engine.stop() == 0


def test_a_bad_push_is_refused_and_the_old_model_goes_on(kafka_config, tmp_path):
    load(kafka_config)
    good = encode_weights(small_weights(ITEMS, content_dim=StateConfig().content_dim))
    with running(kafka_config, tmp_path / "engine.log") as engine, ousel.Client(engine.address, DEADLINE_S) as client:
        push(engine.address, good, 3)
        wait_until_it_serves(client, 3)
        for data, version, sha256, reason in (
            (good, 4, b"0" * 32, "sha256"),
            (good[:-40], 4, None, "safetensors"),
            (encode_weights(small_weights(ITEMS, content_dim=9)), 4, None, "content_dim must be 128"),
            (good, 3, None, "version must be > 3, the newest"),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                push(engine.address, data, version, sha256)
            assert reason in refused.value.details()
        served = client.recommend("u1", k=3)
        assert (served.origin, served.model_version) == (ousel.Origin.MODEL, 3)


def test_broken_records_become_dead_letters_and_the_stream_goes_on(kafka_config, tmp_path):
    load(kafka_config)
    future_time = Timestamp(seconds=int(time.time()) + 10 * 86_400)
    broken = [
        event_pb2.Event(user_id="u1", kind="purchase"),
        event_pb2.Event(item_id="i01"),
        event_pb2.Event(user_id="u1", item_id="i01", kind="nonsense"),
        event_pb2.Event(user_id="u1", item_id="i01", time=future_time),
    ]
    with running(kafka_config, tmp_path / "engine.log") as engine, ousel.Client(engine.address, DEADLINE_S) as client:
        write(kafka_config, [*broken, purchase("brand new", "i02", "last")])
        until(lambda: client.status().events_dead_lettered == 4 and client.status().events_folded == 201)
        assert client.recommend("brand new", k=3).known

        letters = KafkaConsumer(
            kafka_config.dead_letters_topic, **connection_settings(kafka_config), auto_offset_reset="earliest"
        )
        reasons: list[str] = []
        until(lambda: reasons.extend(
            dict(record.headers)["reason"].decode() for batch in letters.poll(100).values() for record in batch
        ) or len(reasons) >= 4)  # fmt: skip
        letters.close()
        for word in ("item_id", "user_id", "nonsense", "time"):
            assert any(word in reason for reason in reasons), (word, reasons)


def test_metrics_tell_of_ingest_lag_freshness_latency_model_and_index(kafka_config, tmp_path):
    load(kafka_config)
    with running(kafka_config, tmp_path / "engine.log") as engine, ousel.Client(engine.address, DEADLINE_S) as client:
        push(engine.address, encode_weights(small_weights(ITEMS, content_dim=StateConfig().content_dim)), 1)
        wait_until_it_serves(client, 1)
        with client.stream("u1", k=5) as updates:
            lists = iter(updates)
            next(lists)
            client.track("i39", "u1", kind="purchase")
            next(lists)

        def samples() -> dict[str, float]:
            with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics") as page:
                families = text_string_to_metric_families(page.read().decode())
                return {sample.name: sample.value for family in families for sample in family.samples}

        # The engine counts after it has answered.
        until(
            lambda: (
                (found := samples())["ousel_events_folded_total"] == 201
                and found["ousel_lag_records"] == 0
                and found["ousel_freshness_seconds_count"] >= 1
                and found["ousel_request_seconds_count"] >= 1
                and (found["ousel_model_version"], found["ousel_index_items"]) == (1, 40)
            ),
            samples,
        )


def test_it_restarts_to_the_same_lists_from_the_log(kafka_config, tmp_path):
    load(kafka_config)
    lists = []
    for attempt in range(2):
        with (
            running(kafka_config, tmp_path / f"engine{attempt}.log") as engine,
            ousel.Client(engine.address, DEADLINE_S) as client,
        ):
            if attempt == 0:  # The registry has it after that.
                push(engine.address, encode_weights(small_weights(ITEMS, content_dim=StateConfig().content_dim)), 1)
                wait_until_it_serves(client, 1)
            lists.append([[item.item_id for item in client.recommend(f"u{at}", k=10).items] for at in range(10)])
    assert lists[0] == lists[1]


def test_an_absent_broker_is_waited_for_and_said_once_per_try(start, tmp_path):
    with start(tmp_path / "broker") as gone:
        kafka = KafkaConfig(**gone.client_settings())
    engine = EngineProcess(kafka, tmp_path / "engine.log")
    try:
        engine.line(r"no Kafka broker at 127.0.0.1:\d+.*next try in 0.5 s")
        assert engine.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        with ousel.Client(engine.address, DEADLINE_S) as client, pytest.raises(ousel.Unavailable, match="Kafka"):
            client.track("i1", "u1")
        assert engine.log().count("next try in 0.25 s") == 1
        with start(tmp_path / "broker", gone.port):
            engine.wait_until_serving()
            assert engine.stop() == 0
    finally:
        engine.kill()


def test_a_taken_port_is_one_clear_line_and_exit_code_1():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "engine", "serve"],
            env=os.environ | {"OUSEL_SERVING__PORT": str(port), "OUSEL_SERVING__METRICS_PORT": "0"},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    assert ended.returncode == 1
    assert [line for line in ended.stderr.splitlines() if " INFO " not in line] == [
        f"ousel-engine: can't listen on 127.0.0.1:{port} for gRPC: Address already in use"
    ]
