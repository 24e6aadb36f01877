"""Track, fold and push are one trace by links; without the extra, or the setting, nothing happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import ConfigError, TracesConfig
from engine.tracing import spans

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNTRACED = CALLER[:-1] + "0"


@pytest.fixture
def ended(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The spans that have ended, by name; a parameter is the share of calls that are traced."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra `traces` is not installed")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc", reason="the extra `traces` is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from engine.tracing.provider import OpenTelemetry

    exporter = InMemorySpanExporter()
    share = getattr(request, "param", 1.0)
    spans.use(OpenTelemetry(exporter, share, "engine-1", SimpleSpanProcessor(exporter)))
    yield lambda: {span.name: span for span in exporter.get_finished_spans()}
    spans.stop()


def call(*metadata: tuple[str, str]) -> SimpleNamespace:
    return SimpleNamespace(invocation_metadata=lambda: metadata)


def written(*metadata: tuple[str, str]) -> list[str]:
    """The traceparents that a record has which is written in a Track call."""
    with spans.track(call(*metadata)):
        return [value.decode() for name, value in spans.record_headers() or () if name == spans.TRACEPARENT]


def test_track_fold_and_push_are_one_trace_by_links(ended: Any) -> None:
    traceparents = written()
    link = spans.fold(traceparents, 1_700_000_000_000, 7)
    with spans.push([link], 5):
        pass
    track, fold, push = (ended()[name] for name in ("Track", "fold", "push"))
    assert [one.context.span_id for one in fold.links] == [track.context.span_id]
    assert [one.context.span_id for one in push.links] == [fold.context.span_id]
    assert len({span.context.trace_id for span in (track, fold, push)}) == 3
    assert fold.start_time == 1_700_000_000_000 * 10**6 and fold.attributes["ousel.events"] == 7
    assert track.resource.attributes["service.instance.id"] == "engine-1"


def test_the_callers_span_is_the_parent(ended: Any) -> None:
    (traceparent,) = written(("x", "y"), (spans.TRACEPARENT, CALLER))
    assert traceparent.split("-")[1] == CALLER.split("-")[1]
    assert f"{ended()['Track'].parent.span_id:016x}" == CALLER.split("-")[2]


@pytest.mark.parametrize("ended", [0.0], indirect=True)
def test_whoever_traces_decides_and_the_share_is_for_the_others(ended: Any) -> None:
    assert written() == [] and ended() == {}
    assert len(written((spans.TRACEPARENT, CALLER))) == 1
    # What follows from a traced record is traced, whatever the share.
    assert spans.fold([CALLER], 1, 1) is not None and "fold" in ended()


def test_a_call_that_its_caller_does_not_trace_is_not_traced(ended: Any) -> None:
    assert written((spans.TRACEPARENT, UNTRACED)) == [] and ended() == {}


@pytest.mark.parametrize("traceparent", ["", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 900])
def test_a_traceparent_that_is_none_is_as_if_there_were_none(traceparent: str, ended: Any) -> None:
    assert len(written((spans.TRACEPARENT, traceparent))) == 1
    assert ended()["Track"].parent is None
    assert spans.fold([traceparent], 1, 1) is None


def test_a_batch_links_to_a_bounded_number_of_records(ended: Any) -> None:
    spans.fold([f"{CALLER[:-19]}{number:016x}-01" for number in range(1, 101)], 1, 100)
    assert len(ended()["fold"].links) == 32 and ended()["fold"].attributes["ousel.events.traced"] == 100


def test_without_tracing_nothing_happens_and_nothing_is_read() -> None:
    with spans.track(SimpleNamespace()):
        assert spans.record_headers() is None
    assert spans.fold([CALLER], 1, 1) is None
    with spans.push([object()], 1):
        pass
    spans.start(TracesConfig(), "engine-1")
    spans.stop()


def test_nothing_of_the_extra_is_imported_before_it_is_wanted() -> None:
    code = "import sys, engine.tracing.spans, engine.events.producer; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_setting_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "engine.tracing.provider", raising=False)
    with pytest.raises(ConfigError, match=r"traces.endpoint needs the extra `traces`.*ousel-engine\[traces\]"):
        spans.start(TracesConfig(endpoint="http://localhost:4317"), "engine-1")
