"""The spans of an event's way through the engine: Track, the fold of its record, and the push of the list it changed.

Each is the root of a trace of its own, or has the caller's span as its parent, and links to the one before. Until
`start` they cost nothing, and nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from engine.config import ConfigError, TracesConfig

TRACEPARENT = "traceparent"  # in a call's metadata and in a record's headers, see W3C Trace Context

Link = Any  # to a span, as the tracer has it


class Tracer(Protocol):
    """Whatever makes spans."""

    def track(self, traceparent: str | None) -> AbstractContextManager[object]: ...

    def traceparent(self) -> str | None: ...

    def fold(self, traceparents: Sequence[str], oldest_ms: int, events: int) -> Link: ...

    def push(self, folds: Sequence[Link], items: int) -> AbstractContextManager[object]: ...

    def close(self) -> None: ...


_tracer: Tracer | None = None
_NOTHING: AbstractContextManager[object] = nullcontext()


def start(config: TracesConfig, instance: str) -> None:
    """Begins to trace, where the configuration says so.

    Args:
        instance: the name of this engine among others.

    Raises:
        ConfigError: the extra is not installed.
    """
    if config.endpoint is None:
        return
    try:
        from engine.tracing.provider import OpenTelemetry, exporter_to
    except ImportError as error:
        raise ConfigError(
            f"traces.endpoint needs the extra `traces`, and {error.name} is not installed: pip install"
            " 'ousel-engine[traces]', or leave the setting out"
        ) from None
    use(OpenTelemetry(exporter_to(config.endpoint), config.share, instance))


def use(tracer: Tracer | None) -> None:
    """Has all spans made by this tracer; None ends tracing."""
    global _tracer
    _tracer = tracer


def stop() -> None:
    """Sends the spans that wait, for a short time, and ends tracing."""
    tracer = _tracer
    use(None)
    if tracer is not None:
        tracer.close()


def track(context: Any) -> AbstractContextManager[object]:
    """The span of a Track call, around all that it does.

    Args:
        context: of the call, whose metadata may name the span of its caller.
    """
    if _tracer is None:
        return _NOTHING
    given = (value for key, value in context.invocation_metadata() or () if key == TRACEPARENT)
    return _tracer.track(next(given, None))


def record_headers() -> list[tuple[str, bytes]] | None:
    """The headers of a record that is written for the span at hand; None where it is not traced."""
    traceparent = None if _tracer is None else _tracer.traceparent()
    return None if traceparent is None else [(TRACEPARENT, traceparent.encode())]


def fold(traceparents: Sequence[str], oldest_ms: int, events: int) -> Link | None:
    """The span of a batch that was folded, with a link to each record that is traced.

    Args:
        traceparents: of these records; the first 32 are linked.
        oldest_ms: the time of the oldest of them in the log, since 1970, from which on the span lasts until now.
        events: how many events it had.

    Returns:
        The link for what follows from the batch; None where nothing is traced.
    """
    return None if _tracer is None else _tracer.fold(traceparents, oldest_ms, events)


def push(folds: Sequence[Link], items: int) -> AbstractContextManager[object]:
    """The span of a list on its way to a stream, around the write.

    Args:
        folds: links to the batches that it follows from; without any there is no span.
        items: how many the list has.
    """
    return _NOTHING if _tracer is None or not folds else _tracer.push(folds, items)
