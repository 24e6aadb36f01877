"""The engine that `serving` calls: a shop in memory, a model, and a server with one more handler, `Echo`.

It has 100,000 items and a model of random weights whose items are as far apart as a trained model's (`_weights`). Its
log is in memory, and 500 events/s of it are new. `Echo` returns a list that was made beforehand.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import numpy as np
import torch
from ousel.v1 import event_pb2, recommender_service_pb2

from benchmarks.serving_calls import ECHO
from engine.config import CanaryConfig, Config, IndexConfig, ServingConfig, StateConfig
from engine.events.batch import Record
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import MemorySource
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights, encode_weights
from engine.pipeline import Pipeline
from engine.ranking.query import Query
from engine.ranking.recommender import recommend
from engine.security import guard
from engine.security.roles import ACCESS, Role
from engine.serving.calls import CallObserver
from engine.serving.first_message import FirstMessages
from engine.serving.lists import response_bytes
from engine.serving.server import Server
from engine.serving.subscriptions import Subscriptions

ITEMS = 100_000
USERS = 20_000
K = 20
EVENTS_PER_S = 500
_FEED_S = 0.01
_ID_SPREAD = 0.08  # standard deviation
_STRIDE = 61_803  # shares no divisor with ITEMS: so many steps name every item once

T = TypeVar("T")


class Engine:
    """One that runs: its port, and its pipeline to ask without gRPC."""

    def __init__(self, pipeline: Pipeline, config: Config, port: int) -> None:
        self.pipeline, self.config, self.port = pipeline, config, port

    async def in_its_thread(self, work: Callable[[], T]) -> T:
        """Runs `work` there, while nothing else is done, and returns its result."""
        return await asyncio.wrap_future(self.pipeline.errands.submit(work))

    def make(self, queries: list[Query]) -> bytes:
        """Lists made together, as bytes; in the engine's thread."""
        pipeline = self.pipeline
        made = recommend(queries, pipeline.state, pipeline.generation, self.config.ranking)
        return b"".join(map(response_bytes, made))


def settings() -> Config:
    """All defaults, but for ports, the room for users, the cores of the first build, and a canary that has nobody."""
    return Config(
        state=StateConfig(max_users=2 * USERS),
        index=IndexConfig(rebuild_threads=os.cpu_count() or 1),
        canary=CanaryConfig(min_scorer_share=0),  # its model is untrained
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
        guard.ACCESS = {**ACCESS, ECHO: (Role.RECOMMEND,)}  # else it is refused to everybody
        service, method = ECHO.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))


@asynccontextmanager
async def running(events: int) -> AsyncIterator[Engine]:
    """An engine with its server that has folded so many events, serves a model, and folds further events."""
    config = settings()
    subscriptions = Subscriptions(config.serving.max_streams, wake=lambda: pipeline.wake())
    ready = threading.Event()
    pipeline = Pipeline(config, subscriptions, on_ready=ready.set)
    print(f"folding {events:,} events, embedding and indexing {ITEMS:,} items", flush=True)
    source, stop = MemorySource(list(_batches(config, 0, events, 4096))), threading.Event()
    engine = threading.Thread(target=pipeline.run, args=(source, MemoryDeadLetters(), stop), name="engine")
    engine.start()
    await asyncio.to_thread(ready.wait)
    await asyncio.wrap_future(pipeline.install(encode_weights(_weights(config)), 1, {}))
    server = _EchoServer(config, pipeline, subscriptions, None)
    made = Engine(pipeline, config, 0)
    server.echo = await made.in_its_thread(lambda: made.make([Query("user-1", "", K)]))
    await server.start()
    made.port = server.port
    feeder = threading.Thread(target=_feed, args=(source, config, events, stop), name="feeder")
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


def _weights(config: Config) -> Weights:
    """Random, but with learned ids as far apart as training moves them.

    Before any training all items are nearly alike: a mean cosine of 0.99, which no search tells apart. Five minutes of
    `ousel-trainer train` on the 12,101 items of Amazon's Beauty left their mean vector at a length of 0.55, their
    covariance at an effective dimension of 46, and a session's cosines with all items at a standard deviation of 0.11.
    Ids of this spread give 0.55, 46 and 0.11 here.
    """
    torch.manual_seed(0)
    shape = ModelShape(vocabulary=ITEMS, content_dim=config.state.content_dim, kinds=len(config.events.kinds))
    model = Recommender(shape)
    torch.nn.init.normal_(model.graph.identity.weight, std=_ID_SPREAD)
    return Weights(model.eval().requires_grad_(False), [f"item-{number}" for number in range(ITEMS)])


def _batches(config: Config, first: int, count: int, size: int) -> Iterator[list[Record]]:
    """Events of a shop: half of them of few items that many have, half of all in turn."""
    draw = np.random.default_rng(first)
    users = draw.integers(0, USERS, count)
    numbers = first + np.arange(count)
    items = np.where(numbers % 2, draw.zipf(1.2, count) % ITEMS, numbers // 2 * _STRIDE % ITEMS)
    now_ms = time.time_ns() // 1_000_000
    for start in range(0, count, size):
        batch = []
        for number in range(start, min(start + size, count)):
            event = event_pb2.Event(
                event_id=f"{first + number}",
                user_id=f"user-{users[number]}",
                item_id=f"item-{items[number]}",
            )
            event.time.FromMilliseconds(now_ms - (count - number))
            key, value = event.user_id.encode(), event.SerializeToString()
            batch.append(Record(config.kafka.events_topic, 0, first + number, now_ms, key, value))
        yield batch


def _feed(source: MemorySource, config: Config, first: int, stop: threading.Event) -> None:
    size = round(EVENTS_PER_S * _FEED_S)
    began_s = time.monotonic()
    for number in range(10**9):
        if stop.wait(max(0.0, began_s + number * _FEED_S - time.monotonic())):
            return
        for batch in _batches(config, first + number * size, size, size):
            source.append(batch)
