"""Brings the engine's answers into the event loop: one wake-up for all that are made together.

Waking a loop from another thread costs more than most of what a call does there. Answers come in batches, so only the
first of a batch wakes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Inbox:
    """Waits in one event loop for futures of other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._woken = False

    async def wait(self, future: Future[T]) -> T:
        """The future's result, or what it failed with; cancelling the caller cancels the future."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(partial(self._put, waiter))
        try:
            return await waiter
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _put(self, waiter: asyncio.Future[Any], future: Future[Any]) -> None:
        """In any thread."""
        self._done.append((waiter, future))
        if self._woken:  # The wake-up before has not looked yet, and will find this one, too.
            return
        self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._take)
        except RuntimeError:  # the loop is closed, and with it whoever waited
            pass

    def _take(self) -> None:
        self._woken = False  # before looking: what comes from now on wakes the loop again
        while self._done:
            waiter, future = self._done.popleft()
            if waiter.done():  # cancelled
                continue
            if future.cancelled():
                waiter.cancel()
            elif (error := future.exception()) is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(future.result())
