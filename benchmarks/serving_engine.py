"""The engine that `serving` calls: a grocer's shop in memory, a trained model, and a server with one more handler.

The shop is the demo's: 92,331 items with their titles and categories, and a year of the purchases of 2,469 households,
with times as if the year ended now. The log is in memory, and 500 events/s of it are new. The handler `Echo` returns a
list that was made beforehand.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import grpc
import numpy as np
from ousel.v1 import recommender_service_pb2

from benchmarks.serving_calls import ECHO
from deploy.demo.data import Purchases, data_folder, events, read_items, read_purchases
from engine.config import CanaryConfig, Config, IndexConfig, ServingConfig
from engine.events.batch import Record
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import MemorySource
from engine.pipeline import Pipeline
from engine.ranking.query import Query
from engine.ranking.recommender import recommend
from engine.ranking.side_by_side import ALONE, SideBySide
from engine.security import guard
from engine.security.roles import ACCESS, Role
from engine.serving.calls import CallObserver
from engine.serving.first_message import FirstMessages
from engine.serving.lists import response_bytes
from engine.serving.server import Server
from engine.serving.subscriptions import Subscriptions

USERS = 2469
K = 20
EVENTS_PER_S = 500
_FEED_S, _LATE_S = 0.01, 0.05
_WEEKS = 45  # of 53: what comes later is fed
_FOLDED_AT_ONCE = 4096  # records

T = TypeVar("T")


class Engine:
    """One that runs: its port, and its pipeline to ask without gRPC."""

    def __init__(self, pipeline: Pipeline, config: Config, source: MemorySource) -> None:
        self.pipeline, self.config, self.port = pipeline, config, 0
        self._source = source

    @property
    def items(self) -> int:
        return len(self.pipeline.state.items)

    async def in_its_thread(self, work: Callable[[], T]) -> T:
        """Runs `work` there, while nothing else is done, and returns its result."""
        return await asyncio.wrap_future(self.pipeline.errands.submit(work))

    async def catch_up(self) -> None:
        """Waits until hardly anything is left to fold of what came while its thread did other work."""
        while await self.in_its_thread(self._source.lag) > EVENTS_PER_S * _LATE_S:
            await asyncio.sleep(_FEED_S)

    def make(self, queries: list[Query], threads: SideBySide = ALONE) -> bytes:
        """Lists made together as calls get them, as bytes; in the engine's thread."""
        pipeline = self.pipeline
        assert pipeline.generation is not None
        pipeline.generation.index.search_threads = threads.threads
        made = recommend(queries, pipeline.state, pipeline.generation, self.config.ranking, followed=0, threads=threads)
        return b"".join(map(response_bytes, made))


def settings() -> Config:
    """All defaults, but for ports, the cores of the first build, and a canary that has nobody to ask about."""
    return Config(
        index=IndexConfig(rebuild_threads=os.cpu_count() or 1),
        canary=CanaryConfig(min_scorer_share=0),  # its model serves by what it is worth
        serving=ServingConfig(port=0, metrics_port=0),
    )


class _EchoServer(Server):
    """The engine's own server, with one more handler, which passes through the same interceptor."""

    echo: bytes = b""

    def _register(self, server: grpc.aio.Server, calls: CallObserver, first: FirstMessages) -> None:
        super()._register(server, calls, first)
        message = recommender_service_pb2.RecommendResponse.FromString(self.echo)

        async def echo(request: Any, context: Any) -> recommender_service_pb2.RecommendResponse:
            return message

        handler = grpc.unary_unary_rpc_method_handler(
            echo,
            recommender_service_pb2.RecommendRequest.FromString,
            recommender_service_pb2.RecommendResponse.SerializeToString,
        )
        service, method = ECHO.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))


@asynccontextmanager
async def running(history: int, weights: bytes, items: int | None = None) -> AsyncIterator[Engine]:
    """An engine with its server that has folded so many purchases, serves a model, and folds further ones.

    Args:
        weights: of the model.
        items: how many of the catalog there are; None: all.
    """
    config = settings()
    subscriptions = Subscriptions(config.serving.max_streams, wake=lambda: pipeline.wake())
    ready = threading.Event()
    pipeline = Pipeline(config, subscriptions, on_ready=ready.set)
    catalog = _catalog(config)[:items]
    past, live = _numbered(*read_purchases(data_folder(), _WEEKS))
    past = past[-history:]
    print(f"folding {len(past):,} purchases, embedding and indexing {len(catalog):,} items", flush=True)
    records = catalog + _records(config, past, 0)
    parts = [records[at : at + _FOLDED_AT_ONCE] for at in range(0, len(records), _FOLDED_AT_ONCE)]
    source, stop = MemorySource(parts), threading.Event()
    engine = threading.Thread(target=pipeline.run, args=(source, MemoryDeadLetters(), stop), name="engine")
    engine.start()
    await asyncio.to_thread(ready.wait)
    await asyncio.wrap_future(pipeline.install(weights, 1, {}))
    server = _EchoServer(config, pipeline, subscriptions, None)
    made = Engine(pipeline, config, source)
    server.echo = await made.in_its_thread(lambda: made.make([Query("user-1", "", K)]))
    guard.ACCESS = {**ACCESS, ECHO: (Role.RECOMMEND,)}  # else an echo is refused to everybody
    await server.start()
    made.port = server.port
    feeder = threading.Thread(target=_feed, args=(source, config, live, len(past), stop), name="feeder")
    feeder.start()
    try:
        yield made
    finally:
        stop.set()
        pipeline.wake()
        await server.stop(0)
        await asyncio.to_thread(engine.join)
        await asyncio.to_thread(feeder.join)
        pipeline.close()
        guard.ACCESS = ACCESS


def _catalog(config: Config) -> list[Record]:
    """The records of all items."""
    items = enumerate(read_items(data_folder()))
    return [
        Record(config.kafka.items_topic, 0, offset, _now_ms(), item.item_id.encode(), item.SerializeToString())
        for offset, item in items
    ]


def _numbered(past: Purchases, live: Purchases) -> tuple[Purchases, Purchases]:
    """Both parts with the households as numbers from 0 on."""
    households = np.unique(np.concatenate([past.household, live.household]))
    if len(households) != USERS:
        raise RuntimeError(f"the data has {len(households)} households, the callers ask for {USERS}")
    return (
        replace(past, household=np.searchsorted(households, past.household)),
        replace(live, household=np.searchsorted(households, live.household)),
    )


def _records(config: Config, purchases: Purchases, first: int) -> list[Record]:
    """Purchases as records of the events' topic from offset `first` on; the last of them is made now."""
    later_ms = _now_ms() - int(purchases.time_ms[-1])
    made = []
    for offset, event in enumerate(events(purchases), first):
        event.user_id, event.event_id = f"user-{event.user_id}", str(offset)
        event.time.FromMilliseconds(event.time.ToMilliseconds() + later_ms)
        key, value = event.user_id.encode(), event.SerializeToString()
        made.append(Record(config.kafka.events_topic, 0, offset, _now_ms(), key, value))
    return made


def _feed(source: MemorySource, config: Config, live: Purchases, first: int, stop: threading.Event) -> None:
    """Appends `live` at a steady rate, and once more from its beginning where it ends before the benchmark does."""
    size = round(EVENTS_PER_S * _FEED_S)
    began_s = time.monotonic()
    for number in range(10**9):
        if stop.wait(max(0.0, began_s + number * _FEED_S - time.monotonic())):
            return
        at = number * size % (len(live) - size)
        source.append(_records(config, live[at : at + size], first + number * size))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
