"""Open streams and calls at a steady rate, by one client of several engines, while these are restarted."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import ousel

_ALIVE_S = 30.0
_TRACKED = 0.1  # share of the calls that write an event
_TICK_S = 0.01


@dataclass
class Seen:
    """The outcomes of the calls and the streams.

    Attributes:
        calls: that were made; each has ended.
        failed: what those said that failed, retries of the client included.
        waits_s: of the calls that were answered.
        opened: lists that came because a stream was opened, or opened again.
        broken: what streams said that did not go on.
        silent: streams that had no list after the end, though their user had a new event.
    """

    calls: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    lists: int = 0
    opened: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    silent: int = 0

    def wait_ms(self, share: float) -> float:
        """The wait that this share of the answered calls did not exceed."""
        ordered = sorted(self.waits_s)
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


class RollingLoad:
    """Makes the load; for one run.

    Args:
        addresses: of the engines.
        users, items: whom calls and streams are for, and what they track.
        streams: that are held open, each of a user.
        calls_per_s: beside them.
        timeout_s: that a call may take, retries included.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        users: Sequence[str],
        items: Sequence[str],
        streams: int,
        calls_per_s: float,
        timeout_s: float = 10.0,
    ) -> None:
        self._timeout_s = timeout_s
        self._addresses = list(addresses)
        self._users, self._items = users, items
        self._streams, self._calls_per_s = streams, calls_per_s
        self._random = random.Random(0)
        self._lists_of: Counter[asyncio.Task[None]] = Counter()  # by the task that reads the stream
        self.seen = Seen()

    async def run(self, begun: threading.Event, done: threading.Event) -> Seen:
        """Goes on until `done` is set; `begun` is set once every stream has had its first list. From another thread."""
        over = asyncio.Event()
        async with ousel.AsyncClient(self._addresses, self._timeout_s) as client:
            streams = [asyncio.create_task(self._stream(client, number, over)) for number in range(self._streams)]
            calls: set[asyncio.Task[None]] = set()
            began_s = time.monotonic()
            while not done.is_set():
                await asyncio.sleep(_TICK_S)
                if len(self._lists_of) == self._streams:
                    begun.set()
                due = int((time.monotonic() - began_s) * self._calls_per_s) - self.seen.calls
                for _ in range(due):
                    self.seen.calls += 1
                    calls.add(call := asyncio.create_task(self._call(client)))
                    call.add_done_callback(calls.discard)
            over.set()
            await asyncio.gather(*calls, *streams)
        return self.seen

    async def _call(self, client: ousel.AsyncClient) -> None:
        user, began_s = self._random.choice(self._users), time.monotonic()
        try:
            if self._random.random() < _TRACKED:
                await client.track(self._random.choice(self._items), user)
            else:
                await client.recommend(user)
        except ousel.OuselError as error:
            self.seen.failed[f"{error.code}: {error}"] += 1
        else:
            self.seen.waits_s.append(time.monotonic() - began_s)

    async def _stream(self, client: ousel.AsyncClient, number: int, over: asyncio.Event) -> None:
        try:
            await self._held(client, self._users[number % len(self._users)], over)
        except ousel.OuselError as error:
            self.seen.broken[f"{type(error).__name__}: {error}"] += 1

    async def _held(self, client: ousel.AsyncClient, user: str, over: asyncio.Event) -> None:
        """Reads a stream until `over` is set and one more list has come.

        Raises:
            OuselError: the stream did not go on.
        """
        async with client.stream(user) as updates:
            reading = asyncio.create_task(self._read(updates))
            stop = asyncio.create_task(over.wait())
            await asyncio.wait([reading, stop], return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not reading.done():
                await self._is_alive(client, user, reading)
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled() and (error := reading.exception()) is not None:
                raise error

    async def _is_alive(self, client: ousel.AsyncClient, user: str, reading: asyncio.Task[None]) -> None:
        """Has one more event bring a list, at the end; else the stream counts as silent."""
        before, limit_s = self._lists_of[reading], time.monotonic() + _ALIVE_S
        try:
            await client.track(self._random.choice(self._items), user)
        except ousel.OuselError as error:
            self.seen.failed[f"{error.code}: {error}"] += 1
            return
        while self._lists_of[reading] == before and not reading.done() and time.monotonic() < limit_s:
            await asyncio.sleep(_TICK_S)
        self.seen.silent += self._lists_of[reading] == before

    async def _read(self, updates: ousel.AsyncSubscription) -> None:
        task = asyncio.current_task()
        assert task is not None
        async for update in updates:
            self.seen.lists += 1
            self.seen.opened += update.cause == ousel.Cause.SUBSCRIBED
            self._lists_of[task] += 1
        raise ousel.StreamEnded("the engine ended the stream")
