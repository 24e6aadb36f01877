"""Open streams while time passes and no event comes: an engine over a log in memory, by a clock that tests set."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import orjson
import pytest

from engine import passing_time
from engine.config import Config
from engine.events.batch import Record
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import MemorySource
from engine.model.weights import encode_weights
from engine.pipeline import Pipeline
from engine.ranking import recommender
from engine.ranking.query import Cause, Query
from engine.serving.subscriptions import Subscription, Subscriptions
from engine.state.state import State
from tests.engine.models import small_weights
from tests.engine.worlds import ITEMS, NOW_MS, record, small_config

DEADLINE_S = 30.0
MINUTE_MS = 60_000
CONFIG = Config(
    **dict(small_config()) | {"state": small_config().state.model_copy(update={"max_items": 4096, "history": 8})}
)


class Engine:
    """A pipeline in its thread, its streams, and the clock that it goes by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms = NOW_MS
        monkeypatch.setattr(passing_time, "_now_ms", lambda: self.now_ms)
        monkeypatch.setattr(recommender, "time", SimpleNamespace(time=lambda: self.now_ms / 1000))
        self.subscriptions = Subscriptions(limit=100, wake=lambda: self.pipeline.wake())
        self.pipeline = Pipeline(CONFIG, self.subscriptions)
        self.source = MemorySource()
        self.items = 0

    def send_items(self, *items: dict) -> None:
        first, self.items = self.items, self.items + len(items)
        self.source.append(
            [
                Record(CONFIG.kafka.items_topic, 0, first + at, NOW_MS, item["item_id"].encode(), orjson.dumps(item))
                for at, item in enumerate(items)
            ]
        )

    def send_events(self, user_id: str, *items: str) -> None:
        self.source.append([record(CONFIG, at, user_id, item) for at, item in enumerate(items)])

    def open(self, query: Query) -> Subscription:
        return self.subscriptions.open(query, asyncio.get_running_loop())

    def __enter__(self) -> Engine:
        self.stop = threading.Event()
        args = self.source, MemoryDeadLetters(), self.stop
        self.thread = threading.Thread(target=self.pipeline.run, args=args, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.pipeline.wake()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        self.pipeline.close()


def at(minutes: int) -> int:
    return NOW_MS + minutes * MINUTE_MS


async def until(done) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not done():
            await asyncio.sleep(0.01)


async def next_list(stream: Subscription) -> tuple[set[str], Cause]:
    ranking, cause = await asyncio.wait_for(stream.next(), DEADLINE_S)
    return {item.item_id for item in ranking.items}, cause


@pytest.mark.parametrize("modelled", [False, True])
async def test_streams_follow_when_an_item_becomes_available_and_when_one_expires(monkeypatch, modelled):
    engine = Engine(monkeypatch)
    with engine:
        engine.send_events("u1", *ITEMS[:4])
        engine.send_items(
            {"item_id": "goes", "title": "t", "available_until": at(1)},
            {"item_id": "comes", "title": "t", "available_from": at(2)},
            {"item_id": "other", "title": "t", "categories": ["c"]},
        )
        await until(lambda: engine.pipeline.state.items_folded == 3 and engine.pipeline.state.events_folded == 4)
        if modelled:
            engine.pipeline.install(encode_weights(small_weights(ITEMS)), 1, {}).result(DEADLINE_S)
        streams = [engine.open(Query(user, "", 10)) for user in ("u1", "nobody")]
        unconcerned = engine.open(Query("u1", "", 10, categories=("c",)))
        always = {*ITEMS[:4], "other"}
        for stream in streams:
            assert await next_list(stream) == (always | {"goes"}, Cause.SUBSCRIBED)
        assert (await next_list(unconcerned))[0] == {"other"}
        for minute, listed in ((1, always), (2, always | {"comes"})):
            engine.now_ms = at(minute)
            for stream in streams:
                assert await next_list(stream) == (listed, Cause.CATALOG)
        assert unconcerned.pending is None and engine.pipeline.state.events_folded == 4


async def test_items_that_expire_all_at_once_do_so_a_few_in_each_step(monkeypatch):
    parts = []
    whole = State.pass_time

    def counted(self, now_ms, limit):
        timed = whole(self, now_ms, limit)
        if timed is not None:
            parts.append(len(timed.timed))
        return timed

    monkeypatch.setattr(State, "pass_time", counted)
    monkeypatch.setattr(passing_time, "_AT_ONCE", 100)
    engine = Engine(monkeypatch)
    with engine:
        engine.send_items(*({"item_id": f"i{n}", "available_until": at(1)} for n in range(3000)), {"item_id": "stays"})
        await until(lambda: engine.pipeline.state.items_folded == 3001)
        stream = engine.open(Query("nobody", "", 10))
        assert len((await next_list(stream))[0]) == 10
        engine.now_ms = at(1)
        assert (await next_list(stream))[0] == {"stays"}
        await until(lambda: engine.pipeline.state.availability.count == 1)
    assert parts == [100] * 30
