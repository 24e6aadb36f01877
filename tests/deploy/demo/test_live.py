"""The live part against an engine that is a few lines long."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from ousel import Cause, Origin, Position, Recommendation, RecommendationList, Status, Unavailable, Update
from ousel.v1.event_pb2 import Event
from rich.console import Console

from deploy.demo.data import Purchases
from deploy.demo.live import LiveOptions, LivePart
from deploy.demo.popularity import DecayedPopularity
from deploy.demo.view import LiveView, PlainView

_HISTORY = 40  # records that the log held before, all in its one partition


@dataclass
class _Engine:
    """Log, fold and streams in one. It recommends the item after the last one bought."""

    loses: int = 0  # events that are never folded
    foreign: int = 0  # events of others, folded at the first send
    forgets: int = 0  # and records of others that are no events
    foreign_letters: int = 0  # and such as break a rule
    versions: tuple[int, ...] = (1, 2)
    second_version_after: int = 0  # status calls
    asked: int = 0
    fail_first_stream: bool = False
    events: list[Event] = field(default_factory=list)
    streams: dict[str, asyncio.Queue[Update]] = field(default_factory=dict)
    sent = 0

    @property
    def records(self) -> int:
        return _HISTORY + self.foreign + self.forgets + self.foreign_letters + len(self.events)

    async def status(self) -> Status:
        self.asked += 1
        versions = self.versions if self.asked > self.second_version_after else self.versions[:1]
        lost = min(self.loses, len(self.events))
        return Status(
            serving=True,
            model_version=versions[-1],
            model_metrics={},
            model_versions=versions,
            users=1,
            items=1,
            index_items=1,
            events_folded=self.records - self.forgets - self.foreign_letters - lost,
            items_folded=1,
            events_dead_lettered=self.foreign_letters + lost,
            lag=0,
            streams=len(self.streams),
            failed_calls=0,
            reflects=(Position("events", 0, self.records - 1),),
            uptime_s=1.0,
        )

    def stream(self, user_id: str, k: int) -> _Stream:
        if self.fail_first_stream:
            self.fail_first_stream = False
            raise Unavailable("not yet")
        queue = self.streams[user_id] = asyncio.Queue()
        queue.put_nowait(self.update("0", Cause.SUBSCRIBED))
        return _Stream(queue)

    def update(self, item_id: str, cause: Cause) -> Update:
        items = (Recommendation(item_id, f"title {item_id}", 1.0, ()),)
        return Update(
            RecommendationList(items, Origin.MODEL, True, 1, (Position("events", 0, self.records - 1),)), cause
        )

    # As LogWriter has them.
    def send(self, topic: str, key: str, value: bytes, acked: Callable[[int, int], None]) -> None:
        event = Event.FromString(value)
        assert (topic, key) == ("events", event.user_id)
        self.events.append(event)
        acked(0, self.records - 1)
        if event.user_id in self.streams:
            self.streams[event.user_id].put_nowait(self.update(str(int(event.item_id) + 1), Cause.EVENTS))

    async def flush(self) -> None:
        pass


class _Stream:
    def __init__(self, queue: asyncio.Queue[Update]) -> None:
        self._queue = queue

    async def __aenter__(self) -> _Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Update]:
        while True:
            yield await self._queue.get()


def _purchases(baskets: int, size: int) -> Purchases:
    """Every basket is another household's, of products 0, 1, 2, ..."""
    number = np.repeat(np.arange(baskets), size)
    product = np.tile(np.arange(size), baskets)
    return Purchases(number + 100, number, product, np.ones_like(number), 1000 * np.arange(len(number)))


def _live(engine: _Engine, purchases: Purchases, events: int | None, household: str | None = None) -> LivePart:
    options = LiveOptions(events=events, rate=1000.0, tills=3, household=household)
    user_ids = ["100", "101", "102"]
    popularity = DecayedPopularity()
    popularity.add("0", 0)
    fake: Any = engine
    return LivePart(fake, fake, "events", purchases, _HISTORY, popularity, {"0": "Milk"}, user_ids, options)


async def _run(live: LivePart) -> None:
    async with asyncio.timeout(20):
        await live.subscribe()
        status = asyncio.create_task(live.keep_status())
        await live.replay()
        status.cancel()
        await live.settle()
        await live.close()


async def test_all_is_counted_once_and_nothing_is_wrong() -> None:
    engine = _Engine()
    live = _live(engine, _purchases(baskets=10, size=4), events=20)
    await _run(live)
    result = live.result({"train": 1.0})
    assert (result.events_produced, result.events_folded, result.events_elsewhere) == (20, 20, 0)
    assert len({event.event_id for event in engine.events}) == 20
    # Three households of four purchases each are followed, and every list names the next purchase.
    assert (result.hits.events, result.hits.ousel_hits, result.hits.unmeasured) == (12, 12, 0)
    assert result.freshness.samples == 12
    assert result.model_versions == (1, 2)
    assert (result.failed_calls, result.problems) == (0, ())


async def test_the_floor_knows_what_was_bought_before_and_leaves_out_the_basket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deploy.demo.live._K", 1)
    engine = _Engine()
    live = _live(engine, _purchases(baskets=3, size=2), events=6)
    await _run(live)
    # Product 0 is popular from the start, product 1 once the first household has bought it.
    assert live.result({}).hits.popularity_hits == 3 + 2


@pytest.mark.parametrize(
    ("others", "count"),
    [({"foreign": 3}, 3), ({"forgets": 4}, 4), ({"foreign_letters": 2}, 2), ({"foreign": 1, "forgets": 4}, 5)],
)
async def test_records_of_others_are_told_apart(others: dict[str, int], count: int) -> None:
    """A second terminal tracks events, good and bad ones, and has users forgotten, by a record in every partition."""
    live = _live(_Engine(**others), _purchases(baskets=5, size=4), events=20)  # type: ignore[arg-type]
    await _run(live)
    result = live.result({})
    assert (result.events_produced, result.events_folded, result.events_elsewhere) == (20, 20, count)
    assert result.problems == ()


async def test_lost_events_are_a_problem_and_not_a_footnote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.demo.live._SETTLE_S", 0.3)
    live = _live(_Engine(loses=2), _purchases(baskets=5, size=4), events=20)
    await _run(live)
    result = live.result({})
    assert (result.events_folded, result.events_dead_lettered) == (18, 2)
    assert len(result.problems) == 2


async def test_what_was_asked_for_is_sent_and_then_the_second_model_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deploy.demo.live._STATUS_S", 0.001)
    engine = _Engine(second_version_after=200)
    live = _live(engine, _purchases(baskets=500, size=4), events=20)
    await _run(live)
    result = live.result({})
    assert engine.asked > 200
    assert (result.events_produced, result.events_folded, len(engine.events)) == (20, 20, 20)
    assert result.model_versions == (1, 2)


async def test_the_wait_for_a_second_model_does_not_count_in_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.demo.live._STATUS_S", 0.001)
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 0.001
        return now_s

    monkeypatch.setattr("deploy.demo.live.time.perf_counter", clock)
    quick, slow = _Engine(), _Engine(second_version_after=500)
    paces = []
    for engine in (quick, slow):
        live = _live(engine, _purchases(baskets=500, size=4), events=20)
        await _run(live)
        paces.append(live.result({}).events_per_second)
    assert paces[1] > paces[0] / 3


async def test_the_replay_gives_up_on_a_second_model_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.demo.live._SECOND_MODEL_S", 0.1)
    monkeypatch.setattr("deploy.demo.live._STATUS_S", 0.001)
    live = _live(_Engine(versions=(1,)), _purchases(baskets=500, size=4), events=20)
    await _run(live)
    assert live.result({}).events_produced == 20


async def test_without_a_limit_it_runs_to_the_end_of_the_year() -> None:
    live = _live(_Engine(), _purchases(baskets=5, size=4), events=None)
    await _run(live)
    assert live.result({}).events_produced == 20


async def test_a_stream_that_breaks_is_counted_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.demo.follow._REOPEN_S", 0.01)
    live = _live(_Engine(fail_first_stream=True), _purchases(baskets=5, size=4), events=20)
    await _run(live)
    assert live.result({}).failed_calls == 1
    assert live.result({}).hits.events == 12


async def _shown(live: LivePart, view: LiveView | PlainView) -> None:
    with view:
        task = asyncio.create_task(live.show(view, lambda: "loss 3.2"))
        while not task.done() and live.spotlight.card() is None:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()


@pytest.mark.parametrize("plain", [True, False])
async def test_the_view_shows_the_household_by_name_and_the_numbers(plain: bool) -> None:
    live = _live(_Engine(), _purchases(baskets=3, size=4), events=4)
    await _run(live)
    console = Console(file=io.StringIO(), force_terminal=not plain, width=160, height=40)
    await _shown(live, PlainView(console) if plain else LiveView(console))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for expected in ("household 10", "Milk", "item 1", "1.000", "popularity"):
        assert expected in text
    assert ("loss 3.2" in text) is not plain


async def test_the_spotlight_stays_until_the_basket_is_complete_and_moves_on() -> None:
    live = _live(_Engine(), _purchases(baskets=4, size=4), events=None)
    await live.subscribe()
    first = live.spotlight.household
    assert first == "100"
    card = live.spotlight.card()
    assert card is not None
    assert (card.basket, card.state) == ((), "at the till: 0 in the basket, 4 to come")
    await _run(live)
    await live.close()
    # 103 is not followed, and nobody else is left.
    assert live.spotlight.card() is None


async def test_a_household_that_was_asked_for_stays_in_view() -> None:
    live = _live(_Engine(), _purchases(baskets=4, size=4), events=None, household="102")
    await _run(live)
    card = live.spotlight.card()
    assert card is not None
    assert card.household == "102"
    assert card.basket == ("Milk", "item 1", "item 2", "item 3")
    assert card.state == "paid for 4; waiting for the next basket"
