"""How fast lists are answered over gRPC while events are folded, beside a handler that only returns such a list.

    python -m benchmarks.serving [--quick]

One engine with 100,000 items and a model of random weights, its items as far apart as a trained model's (`_weights`);
its log in memory, 500 events/s of it new; a process of its own that calls, a socket between them. Lists of 20 for users
drawn at random. Three questions, one after the other:

1. How many calls per second are answered with 64 at a time on their way, and how many by `Echo`, a handler of the same
   server that returns a list made beforehand? Both in turns, several times; medians count.
2. How late are answers where calls come at random times, half as many per second as above?
3. And where twice as many come: how late are those that are answered, and how many are refused?
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # it would say at every start of a caller that it can't be given

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import grpc
import numpy as np
import torch
import uvloop
from ousel.v1 import event_pb2, recommender_service_pb2

from benchmarks.report import report
from benchmarks.serving_calls import ECHO
from engine import collector
from engine.config import CanaryConfig, Config, IndexConfig, ServingConfig, StateConfig
from engine.events.batch import Record
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import MemorySource
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights, encode_weights
from engine.pipeline import Pipeline
from engine.ranking.query import Query
from engine.ranking.recommender import recommend
from engine.serving.calls import CallObserver
from engine.serving.first_message import FirstMessages
from engine.serving.lists import response_bytes
from engine.serving.server import Server
from engine.serving.subscriptions import Subscriptions

ITEMS = 100_000
USERS = 20_000
K = 20
EVENTS_PER_S = 500
IN_FLIGHT = 64
_FEED_S = 0.01
_ID_SPREAD = 0.08  # standard deviation
_STRIDE = 61_803  # shares no divisor with ITEMS: so many steps name every item once


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within 50 s")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    sys.setswitchinterval(0.00002)  # as in the engine
    collector.set_aside()
    figures = uvloop.run(
        _measure(_config(), 200_000 if quick else 1_000_000, 1.8 if quick else 10.0, 3 if quick else 5)
    )
    rows = [
        (f"lists, {IN_FLIGHT} calls at a time", f"{figures['calls_per_s']:,} calls/s"),
        ("a handler that returns such a list", f"{figures['echo_calls_per_s']:,} calls/s"),
        ("ratio", f"{figures['ratio']}"),
        ("processor time of the engine per call, folding included", f"{figures['engine_ms_per_call']} ms"),
        ("the same per echo", f"{figures['engine_ms_per_echo']} ms"),
        ("at half that load: p50 and p99", f"{figures['p50_ms']} ms, {figures['p99_ms']} ms"),
        ("at twice that load: p99 of what is answered", f"{figures['overload_p99_ms']} ms"),
        ("beside the p99 at half the load", f"{figures['overload_ratio']}"),
        ("refused, with a hint when to come back", f"{figures['refused_share']:.0%}"),
    ]
    report("serving", f"Lists of {K} of {ITEMS:,} items, while {EVENTS_PER_S} events/s are folded", rows, figures)


def _config() -> Config:
    return Config(
        state=StateConfig(max_users=2 * USERS),
        index=IndexConfig(rebuild_threads=os.cpu_count() or 1),
        canary=CanaryConfig(min_scorer_share=0),  # its model is untrained
        # A list that comes late is worth little here: few wait, and few are made at once.
        serving=ServingConfig(port=0, metrics_port=0, max_batch=32, max_wait_ms=20),
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


async def _measure(config: Config, events: int, seconds: float, turns: int) -> dict[str, float | int | str | bool]:
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
    server.echo = await asyncio.wrap_future(pipeline.errands.submit(lambda: _one_list(pipeline, config)))
    await server.start()
    feeder = threading.Thread(target=_feed, args=(source, config, events, stop), name="feeder")
    feeder.start()
    print("calling", flush=True)
    try:
        return await _call(server.port, seconds, turns)
    finally:
        stop.set()
        pipeline.wake()
        await server.stop(0)
        await asyncio.to_thread(engine.join)
        await asyncio.to_thread(feeder.join)
        pipeline.close()


async def _call(port: int, seconds: float, turns: int) -> dict[str, float | int | str | bool]:
    await _load(port, "Recommend", seconds)  # warms both sides
    lists, echoes = [], []
    for _ in range(turns):
        echoes.append(await _load(port, "Echo", seconds))
        lists.append(await _load(port, "Recommend", seconds))
    calls_per_s = median(part["answered"] / part["seconds"] for part in lists)
    echo_calls_per_s = median(part["answered"] / part["seconds"] for part in echoes)
    half = await _load(port, "Recommend", 3 * seconds, calls_per_s / 2)
    twice = await _load(port, "Recommend", 2 * seconds, 2 * calls_per_s)
    return {
        "calls_per_s": round(calls_per_s),
        "echo_calls_per_s": round(echo_calls_per_s),
        "ratio": round(calls_per_s / echo_calls_per_s, 3),
        "p50_ms": round(half["p50_ms"], 1),
        "p99_ms": round(half["p99_ms"], 1),
        "overload_p99_ms": round(twice["p99_ms"], 1),
        "overload_ratio": round(twice["p99_ms"] / half["p99_ms"], 2),
        "refused_share": round(twice["refused"] / (twice["refused"] + twice["answered"]), 3),
        "overload_calls_per_s": round(twice["answered"] / twice["seconds"]),
        "engine_ms_per_call": round(median(part["engine_ms"] for part in lists), 2),
        "engine_ms_per_echo": round(median(part["engine_ms"] for part in echoes), 2),
        "items": ITEMS,
        "max_batch": _config().serving.max_batch,
        "max_wait_ms": _config().serving.max_wait_ms,
    }


async def _load(port: int, method: str, seconds: float, per_s: float = 0.0) -> Mapping[str, float]:
    """What the calling process saw, and the engine spent; `per_s` calls at random times, 0: as many as come back."""
    arguments = [str(port), method, str(seconds), str(per_s), str(IN_FLIGHT), str(USERS), str(K)]
    before_s = time.process_time()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.serving_calls", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    seen: Mapping[str, float] = json.loads(output)
    spent_s = time.process_time() - before_s
    return {**seen, "engine_ms": 1000 * spent_s / (seen["answered"] + seen["refused"])}


def _one_list(pipeline: Pipeline, config: Config) -> bytes:
    (ranking,) = recommend([Query("user-1", "", K)], pipeline.state, pipeline.generation, config.ranking)
    return response_bytes(ranking)


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


if __name__ == "__main__":
    main()
