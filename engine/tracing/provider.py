"""Spans by OpenTelemetry's SDK, sent by OTLP over gRPC. Imported where traces are wanted only."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags

MAX_LINKS = 32  # of one span: a batch has thousands of records, and collectors cut longer lists

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SEND_S = 3  # for one batch of spans to be taken, also at the end


def exporter_to(endpoint: str) -> SpanExporter:
    """Sends to a collector; OTEL_EXPORTER_OTLP_HEADERS may hold what that asks for, such as a token."""
    return OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=_SEND_S)


class OpenTelemetry:
    """A `Tracer`. Spans wait in a bounded queue, which drops the newest while the collector is away.

    Args:
        share: of the calls without a traced caller that are traced.
        instance: the name of this engine among others.
        processor: in place of the queue; for tests.
    """

    def __init__(
        self, exporter: SpanExporter, share: float, instance: str, processor: SpanProcessor | None = None
    ) -> None:
        attributes = {
            "service.name": "ousel-engine",
            "service.version": metadata.version("ousel-engine"),
            "service.instance.id": instance,
        }
        sampler = ParentBased(_LinkedOrShare(TraceIdRatioBased(share)))
        self._provider = TracerProvider(resource=Resource.create(attributes), sampler=sampler)
        self._provider.add_span_processor(processor or BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ousel")

    def track(self, traceparent: str | None) -> AbstractContextManager[object]:
        """The span of a call, in force until it is left."""
        caller = None if traceparent is None else _span_context(traceparent)
        parent = Context() if caller is None else trace.set_span_in_context(NonRecordingSpan(caller), Context())
        return self._tracer.start_as_current_span("Track", context=parent, kind=SpanKind.SERVER)

    def traceparent(self) -> str | None:
        """The name of the span in force; None where it is not recorded."""
        found = trace.get_current_span().get_span_context()
        if not (found.is_valid and found.trace_flags.sampled):
            return None
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"

    def fold(self, traceparents: Sequence[str], oldest_ms: int, events: int) -> Link | None:
        """A span that has ended, and the link to it; None where no traceparent is one."""
        links = [Link(found) for found in map(_span_context, traceparents[:MAX_LINKS]) if found is not None]
        if not links:
            return None
        span = self._tracer.start_span(
            "fold",
            context=Context(),
            kind=SpanKind.CONSUMER,
            links=links,
            start_time=min(oldest_ms * 1_000_000, time.time_ns()),  # Clocks of brokers may be ahead.
            attributes={"ousel.events": events, "ousel.events.traced": len(traceparents)},
        )
        span.end()
        return Link(span.get_span_context())

    @contextmanager
    def push(self, folds: Sequence[Link], items: int) -> Iterator[None]:
        """A span around the write of a list."""
        with self._tracer.start_as_current_span(
            "push",
            context=Context(),
            kind=SpanKind.PRODUCER,
            links=list(folds[-MAX_LINKS:]),
            attributes={"ousel.items": items},
        ):
            yield

    def close(self) -> None:
        """Sends what waits."""
        self._provider.shutdown()


class _LinkedOrShare(Sampler):
    """Records every span that links to a recorded one, so that no way ends halfway; of the others a share."""

    def __init__(self, share: Sampler) -> None:
        self._share = share

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        if any(link.context.trace_flags.sampled for link in links or ()):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return self._share.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return "LinkedOrShare"


def _span_context(traceparent: str) -> SpanContext | None:
    """The span that a traceparent names; None where it names none."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    context = SpanContext(int(found[1], 16), int(found[2], 16), True, TraceFlags(int(found[3], 16)))
    return context if context.is_valid else None
