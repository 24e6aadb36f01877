"""The live part: purchases go out at a steady pace, lists come back, and everything is counted."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ousel import AsyncClient, OuselError, Status

from deploy.demo.data import Purchases, events
from deploy.demo.follow import Followers
from deploy.demo.measure import Measurement, SentEvent
from deploy.demo.own_records import OwnRecords, Seen
from deploy.demo.popularity import DecayedPopularity
from deploy.demo.replay import Pace, Sale, Tills
from deploy.demo.spotlight import Spotlight
from deploy.demo.summary import Result
from deploy.demo.view import Snapshot, View
from deploy.demo.writer import LogWriter

_K = 20
_SHOW_S = 0.3
_STATUS_S = 0.5
_RATE_WINDOW_S = 5.0
_RECENT = 5000  # freshness samples in the view
_MAX_LAG = 2000  # beyond it the replay waits for the engine
_FIRST_LISTS_S = 60.0
_SECOND_MODEL_S = 600.0  # A busy machine may take minutes; nothing is sent meanwhile.
_SETTLE_S = 60.0


@dataclass(frozen=True)
class LiveOptions:
    """How the live part runs.

    Attributes:
        events: to produce, and no more; None: until told to stop.
        rate: events per second.
        household: the one to show; None: whoever has much to buy.
    """

    events: int | None
    rate: float
    tills: int
    household: str | None


class LivePart:
    """One run of it, once a first model serves.

    Args:
        history: events that the log held before.
        popularity: has counted them.
        user_ids: households to follow.
    """

    def __init__(
        self,
        client: AsyncClient,
        writer: LogWriter,
        topic: str,
        purchases: Purchases,
        history: int,
        popularity: DecayedPopularity,
        titles: Mapping[str, str],
        user_ids: Sequence[str],
        options: LiveOptions,
    ) -> None:
        self._client = client
        self._writer = writer
        self._topic = topic
        self._purchases = purchases
        self._own = OwnRecords(history)
        self._popularity = popularity
        self._user_ids = user_ids
        self._options = options
        self._measurement = Measurement(user_ids, _K)
        self._followers = Followers(client, self._measurement)
        self._tills = Tills(purchases, options.tills)
        self.spotlight = Spotlight(purchases, self._tills, self._measurement, titles, options.household)
        self._status: Status | None = None
        self._failed_status_calls = 0
        self._produced = 0
        self._started = self._ended = time.perf_counter()
        self._settled = 0  # events that were produced when all was last folded
        self._waiting = False  # for the second model, with all sent
        self._progress: deque[tuple[float, int]] = deque()  # time, folded

    async def subscribe(self) -> None:
        """Opens the streams, each with its first list, before anything is sent."""
        await self._refresh_status()
        await self._followers.open(self._user_ids, _FIRST_LISTS_S)

    async def replay(self) -> None:
        """Sends events until there were enough, then waits for a second model that is still to come."""
        loop = asyncio.get_running_loop()
        self._started = self._ended = time.perf_counter()
        pace = Pace(self._options.rate, self._started)
        while self._produced != self._options.events and (sale := next(self._tills, None)) is not None:
            while self._status and self._status.lag > _MAX_LAG:
                await asyncio.sleep(_STATUS_S)
            await asyncio.sleep(max(0.0, pace.delay(time.perf_counter())))
            self._send(sale, loop)
        if self._options.events is not None:
            await self.settle()
            self._waiting = True
            deadline = time.perf_counter() + _SECOND_MODEL_S
            while len(self.model_versions) < 2 and time.perf_counter() < deadline:
                await asyncio.sleep(_STATUS_S)
            self._waiting = False

    async def settle(self) -> None:
        """Waits until the engine has folded all that was sent, for a minute at most; once it has, it looks once."""
        deadline = time.perf_counter() + _SETTLE_S
        await self._writer.flush()
        while time.perf_counter() < deadline:
            await self._refresh_status()
            if self._settled == self._produced:
                return
            seen = self._seen()
            if seen.all_reflected and seen.folded >= self._produced:
                break
            await asyncio.sleep(0.1)
        self._ended, self._settled = time.perf_counter(), self._produced

    async def close(self) -> None:
        await self._followers.close()

    async def keep_status(self) -> None:
        """Asks the engine how it is twice a second; `replay` and `show` look at the answer. Never returns."""
        while True:
            await self._refresh_status()
            await asyncio.sleep(_STATUS_S)

    async def show(self, view: View, trainer_line: Callable[[], str]) -> None:
        """Keeps the view current; never returns."""
        while True:
            view.show(self._snapshot(trainer_line()))
            await asyncio.sleep(_SHOW_S)

    @property
    def model_versions(self) -> tuple[int, ...]:
        return self._status.model_versions if self._status else ()

    def result(self, setup_s: Mapping[str, float]) -> Result:
        """What came out, after `settle`."""
        status = self._status
        folded, elsewhere, _ = self._seen()
        dead_lettered = status.events_dead_lettered if status else 0
        problems = []
        if folded != self._produced:
            problems.append(f"{self._produced:,} events were produced, {folded:,} folded within {_SETTLE_S:g} s")
        if dead_lettered > elsewhere:
            problems.append(f"{dead_lettered:,} records went to the dead-letter topic")
        return Result(
            events_produced=self._produced,
            events_folded=folded,
            events_dead_lettered=dead_lettered,
            events_elsewhere=elsewhere,
            freshness=self._measurement.freshness(),
            hits=self._measurement.hits,
            model_versions=self.model_versions,
            model_metrics=status.model_metrics if status else {},
            failed_calls=self._followers.failed + self._failed_status_calls + (status.failed_calls if status else 0),
            events_per_second=folded / max(1e-9, self._ended - self._started),
            wanted_per_second=self._options.rate,
            households_followed=len(self._user_ids),
            setup_s=setup_s,
            problems=tuple(problems),
        )

    def _send(self, sale: Sale, loop: asyncio.AbstractEventLoop) -> None:
        (event,) = events(self._purchases[sale.row : sale.row + 1])
        payload = event.SerializeToString()
        sent: SentEvent | None = None
        if event.user_id in self._measurement:
            in_basket = {str(product) for product in self._purchases.product[sale.basket.start : sale.row]}
            popular = self._popularity.top(_K, in_basket)
            sent = self._measurement.sent(event.user_id, event.item_id, popular, time.perf_counter())

        def acked(partition: int, offset: int) -> None:
            loop.call_soon_threadsafe(self._acked, sent, partition, offset)

        self._writer.send(self._topic, event.user_id, payload, acked)
        self._produced += 1
        self._popularity.add(event.item_id, int(self._purchases.time_ms[sale.row]))
        self.spotlight.sold(sale)

    def _acked(self, event: SentEvent | None, partition: int, offset: int) -> None:
        self._own.acked(partition, offset)
        if event:
            self._measurement.acked(event, partition, offset)

    async def _refresh_status(self) -> None:
        try:
            self._status = await self._client.status()
        except OuselError:
            self._failed_status_calls += 1

    def _seen(self) -> Seen:
        return Seen() if self._status is None else self._own.seen(self._status)

    def _snapshot(self, trainer: str) -> Snapshot:
        now, folded = time.perf_counter(), self._seen().folded
        self._progress.append((now, folded))
        while now - self._progress[0][0] > _RATE_WINDOW_S:
            self._progress.popleft()
        first_at, first_folded = self._progress[0]
        return Snapshot(
            elapsed_s=now - self._started,
            produced=self._produced,
            folded=folded,
            wanted=self._options.events,
            events_per_s=(folded - first_folded) / (now - first_at) if now > first_at else 0.0,
            lag=self._status.lag if self._status else 0,
            freshness=self._measurement.freshness(_RECENT),
            hits=self._measurement.hits,
            model_versions=self.model_versions,
            trainer=trainer,
            waiting=self._waiting,
            card=self.spotlight.card(),
        )
