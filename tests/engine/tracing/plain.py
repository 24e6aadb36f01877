"""A tracer that keeps what it is asked for, so that the way of a trace is tested without the extra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from engine.tracing import spans

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class PlainTracer:
    def __init__(self) -> None:
        self.tracked: list[str | None] = []
        self.folded: list[tuple[list[str], int, int]] = []
        self.pushed: list[tuple[list[object], int]] = []

    @contextmanager
    def track(self, traceparent: str | None) -> Iterator[None]:
        self.tracked.append(traceparent)
        yield

    def traceparent(self) -> str | None:
        return TRACEPARENT if self.tracked else None

    def fold(self, traceparents: Sequence[str], oldest_ms: int, events: int) -> object:
        self.folded.append((list(traceparents), oldest_ms, events))
        return f"fold {len(self.folded)}"

    @contextmanager
    def push(self, folds: Sequence[object], items: int) -> Iterator[None]:
        self.pushed.append((list(folds), items))
        yield

    def close(self) -> None:
        pass


@contextmanager
def traced() -> Iterator[PlainTracer]:
    """All spans are this tracer's."""
    tracer = PlainTracer()
    spans.use(tracer)
    try:
        yield tracer
    finally:
        spans.use(None)


@pytest.fixture
def tracer() -> Iterator[PlainTracer]:
    with traced() as tracer:
        yield tracer
