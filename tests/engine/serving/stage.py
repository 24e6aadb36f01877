"""Open streams on a stage: a test says when the engine's thread works, and sees which readers have a list to read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from engine import metrics
from engine.ranking.query import Cause, Query, Ranking
from engine.serving.errors import StreamOver
from engine.serving.subscriptions import Subscription, Subscriptions
from tests.engine.serving.fakes import BASIS, Change

ONE = Query("u1", "", 5)
TWO = Query("u2", "", 5)
OVER = StreamOver()


class Stage:
    """Subscriptions, and an engine's thread that works when told to."""

    def __init__(self, limit: int = 10) -> None:
        self.wakes = 0
        self.all = Subscriptions(limit, self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def open(self, query: Query = ONE) -> Subscription:
        return self.all.open(query, asyncio.get_running_loop())

    async def opened(self, first: Ranking, query: Query = ONE) -> Subscription:
        """A subscription whose reader has its first list."""
        subscription = self.open(query)
        self.make(first)
        assert await taken(subscription) == (first, Cause.SUBSCRIBED)
        return subscription

    def mark(self, *subjects: str, model: bool = False, catalog: bool = False) -> None:
        self.all.mark(subjects, model=model)
        if catalog:
            self.all.mark_catalog(Change())

    def make(self, made: Ranking) -> None:
        for due in self.all.due(100):
            self.all.deliver(due, replace(made, basis=replace(BASIS, query=due.query)))

    def due(self, limit: int = 100) -> list[tuple[str, Cause]]:
        return [(due.query.user_id, due.cause) for due in self.all.due(limit)]


async def taken(subscription: Subscription) -> tuple[Ranking, Cause]:
    async with asyncio.timeout(5):
        return await subscription.next()


async def nothing(subscription: Subscription) -> bool:
    """Whether a reader would wait now."""
    reader = asyncio.create_task(subscription.next())
    for _ in range(3):  # let calls from other threads and the reader have their turns
        await asyncio.sleep(0)
    waits = not reader.done()
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    return waits


@contextmanager
def replaced(times: int) -> Iterator[None]:
    before = metrics.LISTS_REPLACED._value.get()
    yield
    assert metrics.LISTS_REPLACED._value.get() - before == times
