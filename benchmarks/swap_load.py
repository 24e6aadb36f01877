"""The load that `benchmarks.swap` keeps on an engine: calls at a steady rate, open streams, and events."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Self

import ousel

from benchmarks.shop_log import user_id

_K = 20
_MAX_OPEN = 32  # calls; on a machine that is too slow for the rate they would pile up without end
_TIMEOUT_S = 30.0


@dataclass
class Seen:
    """What came back.

    Attributes:
        calls: (when it was due, seconds until its list was there) of each call that was answered, by `perf_counter`.
        lists: checked, those of streams included.
        torn: lists with a score that their version can't have given.
        skipped: calls and events not made because too many before them were still open.
        failures: of calls, streams and events, in words.
    """

    calls: list[tuple[float, float]] = field(default_factory=list)
    lists: int = 0
    torn: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    def latencies_s(self, begin_s: float, end_s: float) -> list[float]:
        """Of the calls that were due within."""
        return [latency_s for due_s, latency_s in self.calls if begin_s <= due_s < end_s]


class Load:
    """Runs in a thread of its own, in a `with`.

    Calls are made when they are due, however late a few others are, and are timed from then on.

    Args:
        items_of: what each user has; the users are its indices, `user_id` names them.
        is_of: whether a score can be of a version.
    """

    def __init__(
        self,
        address: str,
        items_of: Sequence[Sequence[str]],
        is_of: Callable[[int, float], bool],
        *,
        calls_per_s: float,
        events_per_s: float,
        streams: int,
    ) -> None:
        self.seen = Seen()
        self._address = address
        self._items_of = items_of
        self._is_of = is_of
        self._calls_per_s, self._events_per_s, self._streams = calls_per_s, events_per_s, streams
        self._chance = Random(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        async with ousel.AsyncClient(self._address, timeout_s=_TIMEOUT_S) as client:
            streams = [asyncio.create_task(self._follow(client, user)) for user in range(self._streams)]
            await asyncio.gather(
                self._at_rate(self._calls_per_s, lambda due_s: self._call(client, due_s)),
                self._at_rate(self._events_per_s, lambda _: self._track(client)),
            )
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    async def _at_rate(self, per_s: float, make: Callable[[float], Coroutine[None, None, None]]) -> None:
        due_s, running = time.perf_counter(), set[asyncio.Task[None]]()
        while not self._stop.is_set():
            if len(running) < _MAX_OPEN:
                task = asyncio.create_task(make(due_s))
                running.add(task)
                task.add_done_callback(running.discard)
            else:
                self.seen.skipped += 1
            due_s += 1 / per_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        await asyncio.gather(*running)

    async def _call(self, client: ousel.AsyncClient, due_s: float) -> None:
        try:
            ranked = await client.recommend(user_id(self._chance.randrange(len(self._items_of))), k=_K)
        except ousel.OuselError as error:
            self.seen.failures.append(f"call: {error}")
            return
        self.seen.calls.append((due_s, time.perf_counter() - due_s))
        self._check(ranked)

    async def _track(self, client: ousel.AsyncClient) -> None:
        user = self._chance.randrange(2 * self._streams)  # half of the events are of users with a stream
        try:
            await client.track(self._chance.choice(self._items_of[user]), user_id(user))
        except ousel.OuselError as error:
            self.seen.failures.append(f"event: {error}")

    async def _follow(self, client: ousel.AsyncClient, user: int) -> None:
        try:
            async with client.stream(user_id(user), k=_K) as updates:
                async for update in updates:
                    self._check(update.list)
            self.seen.failures.append("stream: it ended")
        except ousel.OuselError as error:
            self.seen.failures.append(f"stream: {error}")

    def _check(self, ranked: ousel.RecommendationList) -> None:
        self.seen.lists += 1
        whole = ranked.items and ranked.origin == ousel.Origin.MODEL
        self.seen.torn += not whole or not all(self._is_of(ranked.model_version, item.score) for item in ranked.items)
