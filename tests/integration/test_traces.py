"""A whole engine that sends its spans to a collector: an event's way from Track to the list it changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import ousel
import pytest
from ousel.v1 import event_pb2, event_service_pb2, event_service_pb2_grpc

from engine.config import KafkaConfig
from tests.integration.engines import DEADLINE_S, ITEMS, load, running, until

collector_pb2 = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="the extra `traces` is not installed"
)
collector_grpc = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc")
pytestmark = pytest.mark.integration

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(collector_grpc.TraceServiceServicer):  # type: ignore[misc,name-defined]
    """Keeps the spans that come, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: dict[str, list[Any]] = {}

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            for scope in (scope for resource in request.resource_spans for scope in resource.scope_spans):
                for span in scope.spans:
                    self._spans.setdefault(span.name, []).append(span)
        return collector_pb2.ExportTraceServiceResponse()

    def spans(self, name: str) -> list[Any]:
        with self._lock:
            return list(self._spans.get(name, ()))


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector, and its URL."""
    server, kept = grpc.server(futures.ThreadPoolExecutor(2)), Collector()
    collector_grpc.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_the_way_of_an_event_from_track_to_the_list_it_changed_reaches_the_collector(
    kafka_config: KafkaConfig, tmp_path: Path, collector: tuple[Collector, str]
) -> None:
    kept, url = collector
    load(kafka_config)
    # A share of nothing: what is traced is what the caller traces, and all that follows from it.
    traced = {"OUSEL_TRACES__ENDPOINT": url, "OUSEL_TRACES__SHARE": "0", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with (
        running(kafka_config, tmp_path / "engine.log", **traced) as engine,
        ousel.Client(engine.address) as client,
        client.stream("u1", k=5) as updates,
    ):
        next(updates)
        client.track(ITEMS[3], "u2")
        event = event_pb2.Event(event_id="traced", user_id="u1", item_id=ITEMS[7], kind="view")
        with grpc.insecure_channel(engine.address) as channel:
            event_service_pb2_grpc.EventServiceStub(channel).Track(
                event_service_pb2.TrackRequest(event=event),
                timeout=DEADLINE_S,
                metadata=[("traceparent", f"00-{TRACE}-{CALLER}-01")],
            )
        until(lambda: kept.spans("push"), engine.log)
        until(lambda: kept.spans("Track") and kept.spans("fold"), engine.log)
    (track,), (fold,), push = kept.spans("Track"), kept.spans("fold"), kept.spans("push")[0]
    assert (track.trace_id.hex(), track.parent_span_id.hex()) == (TRACE, CALLER)
    assert [link.span_id for link in fold.links] == [track.span_id]
    assert [link.span_id for link in push.links] == [fold.span_id]
    assert track.start_time_unix_nano <= fold.end_time_unix_nano <= push.start_time_unix_nano
