"""Whether anybody notices that the model is swapped: ten swaps, two roll backs and three bad models under load.

    python -m benchmarks.swap [--quick]

An engine in a process of its own follows a broker and answers calls at a steady rate and open streams, while events
come. Models are pushed to it over gRPC, each with weights of its own; every version's scores lie in a range that no
other version's reach, so a list that mixes two generations shows it.

    failed_calls     calls, streams and events that did not end as they should
    torn_responses   lists with a score that is not of the version they name, or not made by a model
    refused          bad models that the engine did not take: values that are not finite, embeddings all alike, and a
                     hit rate far below the serving model's
    p99_ms           of calls that were due between the begin of a push and the model serving, or during a roll back
    idle_p99_ms      of calls of the same load between them, in the same run; p99_ratio is the one over the other
    skipped          calls not made because 32 were open: above 0, the machine is too slow for the load

A call is timed from when it was due. It ends with 1 where a call failed, a list was torn, or a bad model was taken.
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
import ousel
import torch
from ousel.v1 import event_pb2

from benchmarks.recovery_engine import KillableEngine
from benchmarks.report import Figure, report
from benchmarks.shop_log import catalog_record, item_id, user_id, write
from benchmarks.swap_load import Load, Seen
from benchmarks.swap_models import bad, honest, is_of, push_and_wait, push_honest
from deploy.local.brokers import start_broker
from engine.config import Config, IndexConfig, KafkaConfig, SnapshotConfig, StateConfig
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics
from engine.model.weights import encode_weights
from trainer.push import WeightsRefused

SWAPS = 10
_ROLL_BACK_AFTER = (4, 8)  # swaps
_ITEMS_PER_USER, _EVENTS_PER_USER = 5, 10
_CALLS_PER_S, _EVENTS_PER_S, _STREAMS = 30, 5, 20
_TIMEOUT_S = 300.0


@dataclass
class Swaps:
    """What happened to the models.

    Attributes:
        busy, idle: (begin, end) of what was measured, by `perf_counter`.
        wrong: what the engine did and should not have.
    """

    busy: list[tuple[float, float]] = field(default_factory=list)
    idle: list[tuple[float, float]] = field(default_factory=list)
    swap_s: list[float] = field(default_factory=list)
    roll_back_ms: list[float] = field(default_factory=list)
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def during(self, spans: list[tuple[float, float]]) -> Iterator[None]:
        begin_s = time.perf_counter()
        try:
            yield
        finally:
            spans.append((begin_s, time.perf_counter()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swap", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small catalog; within 50 s")
    quick = parser.parse_args().quick
    users, items, idle_s = (1000, 2000, 0.8) if quick else (20_000, 20_000, 5.0)
    torch.set_num_threads(1)
    names = [item_id(number) for number in range(items)]
    chance = Random(0)
    items_of = [[names[chance.randrange(items)] for _ in range(_ITEMS_PER_USER)] for _ in range(users)]
    with tempfile.TemporaryDirectory(prefix="ousel-swap-") as folder, start_broker(Path(folder) / "broker") as broker:
        config = _config(broker.client_settings(), Path(folder))
        print(f"broker: {broker.name}; writing {users * _EVENTS_PER_USER:,} events", flush=True)
        ensure_topics(config.kafka)
        _write(config.kafka, items, items_of)
        with closing(KillableEngine(config, Path(folder) / "engine.log")) as engine:
            engine.wait_until_serving()
            address, swaps = engine.address, Swaps()
            push_honest(address, names, 1)
            with Load(
                address, items_of, is_of, calls_per_s=_CALLS_PER_S, events_per_s=_EVENTS_PER_S, streams=_STREAMS
            ) as load:
                _swap_all(address, names, swaps, lambda: time.sleep(idle_s))
    return _report(swaps, load.seen, broker.name)


def _config(kafka: dict[str, object], folder: Path) -> Config:
    """A search narrow enough for a graph over a small catalog; no snapshots, which are another benchmark's question."""
    return Config(
        kafka=KafkaConfig(**kafka, events_partitions=2),
        state=StateConfig(max_users=100_000, max_items=50_000),
        snapshot=SnapshotConfig(dir=folder / "snapshots", engine="swap", interval_s=3600.0),
        index=IndexConfig(ef_search=50),
    )


def _write(config: KafkaConfig, items: int, items_of: Sequence[Sequence[str]]) -> None:
    """A catalog, and users that have each of their few items twice in a row: what they had last is easy to hit."""
    with closing(EventProducer(config)) as producer:
        write(producer.send_item(catalog_record(item)) for item in range(items))
        for turn in range(_EVENTS_PER_USER):
            write(
                producer.send_event(
                    event_pb2.Event(
                        event_id=f"{user}-{turn}", user_id=user_id(user), item_id=own[turn // 2 % len(own)], kind="view"
                    )
                )
                for user, own in enumerate(items_of)
            )


def _swap_all(address: str, items: Sequence[str], swaps: Swaps, idle: Callable[[], None]) -> None:
    version = serving = 1
    with ousel.Client(address, timeout_s=_TIMEOUT_S) as client:
        for number in range(1, SWAPS + 1):
            data = encode_weights(honest(items, version + 1))
            with swaps.during(swaps.idle):
                idle()
            before = serving
            version = serving = version + 1
            with swaps.during(swaps.busy):
                began_s = time.perf_counter()
                push_and_wait(address, data, version)
                swaps.swap_s.append(time.perf_counter() - began_s)
            _expect(client, serving, swaps)
            if number in _ROLL_BACK_AFTER:
                with swaps.during(swaps.busy):
                    done = client.roll_back(version)
                serving = before
                swaps.roll_back_ms.append(done.swap_ms)
                _expect(client, serving, swaps)
            print(f"swap {number}: {swaps.swap_s[-1]:.1f} s, version {serving} serves", flush=True)
        for what, data in bad(items, version + 1).items():
            with swaps.during(swaps.idle):
                idle()
            try:
                with swaps.during(swaps.busy):
                    version += 1
                    push_and_wait(address, data, version)
                swaps.wrong.append(f"a model with {what} was taken")
                return
            except WeightsRefused as refusal:
                swaps.refused += 1
                print(f"refused, {what}: {refusal}", flush=True)
            _expect(client, serving, swaps)


def _expect(client: ousel.Client, serving: int, swaps: Swaps) -> None:
    got = client.status().model_version
    if got != serving:
        swaps.wrong.append(f"version {serving} must serve, and {got} does")


def _report(swaps: Swaps, seen: Seen, broker: str) -> int:
    busy, idle = (
        [latency_s for span in spans for latency_s in seen.latencies_s(*span)] for spans in (swaps.busy, swaps.idle)
    )
    p99_ms, idle_p99_ms = (1000 * float(np.percentile(part, 99)) for part in (busy, idle))
    figures: dict[str, Figure] = {
        "failed_calls": len(seen.failures),
        "torn_responses": seen.torn,
        "refused": swaps.refused,
        "p99_ms": round(p99_ms, 2),
        "idle_p99_ms": round(idle_p99_ms, 2),
        "p99_ratio": round(p99_ms / idle_p99_ms, 2),
        "p50_ms": round(1000 * median(busy), 2),
        "idle_p50_ms": round(1000 * median(idle), 2),
        "swaps": len(swaps.swap_s),
        "roll_backs": len(swaps.roll_back_ms),
        "swap_s": round(median(swaps.swap_s), 2),
        "roll_back_ms": round(max(swaps.roll_back_ms, default=0.0), 1),
        "calls": len(seen.calls),
        "skipped": seen.skipped,
        "lists": seen.lists,
        "broker": broker,
    }
    rows = [
        ("failed calls, torn responses", f"{len(seen.failures)} of {len(seen.calls):,}, {seen.torn} of {seen.lists:,}"),
        ("bad models refused", f"{swaps.refused} of 3"),
        ("p99 of calls during swaps", f"{p99_ms:.1f} ms ({len(busy):,} calls, p50 {figures['p50_ms']} ms)"),
        ("p99 between them", f"{idle_p99_ms:.1f} ms ({len(idle):,} calls, p50 {figures['idle_p50_ms']} ms)"),
        ("ratio", f"{figures['p99_ratio']}"),
        ("a swap, median; a roll back, at most", f"{figures['swap_s']} s; {figures['roll_back_ms']} ms"),
    ]
    report("swap", f"Swaps under load: {figures['swaps']} and {figures['roll_backs']} roll backs", rows, figures)
    for line in (*swaps.wrong, *seen.failures[:10]):
        print(line, file=sys.stderr)
    return 1 if swaps.wrong or seen.failures or seen.torn or swaps.refused != 3 else 0


if __name__ == "__main__":
    sys.exit(main())
