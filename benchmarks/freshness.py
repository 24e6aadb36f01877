"""How soon after a click the list that reflects it is there, beside an engine that only echoes.

    python -m benchmarks.freshness [--quick]

100 open streams in a process of their own, 1,000 events/s over 20,000 items by 1,000 users, so that each clicks once a
second and a tenth of the events are of users with a stream. The engine is a process as operators run it, with a model
of the default shape (its weights are random: what a list costs does not depend on what it is worth), and follows a
broker.
A click's time runs from the call of `produce` to the arrival of the first list on its user's stream that reflects it.

    p50_ms, p99_ms                of the engine
    floor_p50_ms, floor_p99_ms    of `benchmarks.freshness_echo` with the same broker, events and streams, before the
                                  engine is started and after it has ended; medians of the two
    p50_ratio, p99_ratio          of the one over the other: wanted <= 3 and <= 5
    never                         clicks whose list did not come within the run; they count as infinitely late
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from benchmarks.freshness_load import Click, Producer
from benchmarks.recovery_engine import KillableEngine, environment
from benchmarks.report import Figure, report
from benchmarks.shop_log import Events, catalog_record, item_id, write
from benchmarks.swap_models import push_and_wait
from benchmarks.talker import Talker
from deploy.local.brokers import start_broker
from engine.config import Config, EventsConfig, KafkaConfig, SnapshotConfig, StateConfig
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights, encode_weights

STREAMS, EVENTS_PER_S = 100, 1000
USERS, ITEMS = 1000, 20_000
_WARM_S = 1.5  # of each turn, what does not count
_SETTLE_S = 1.0  # after the last event, for its list


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.freshness", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within 50 s")
    quick = parser.parse_args().quick
    history, floor_s, engine_s = (20_000, 2.5, 7.0) if quick else (200_000, 20.0, 60.0)
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory(prefix="ousel-freshness-") as folder,
        start_broker(Path(folder) / "broker") as broker,
    ):
        config = _config(broker.client_settings(), Path(folder))
        print(f"broker: {broker.name}; writing {ITEMS:,} items and {history:,} events", flush=True)
        ensure_topics(config.kafka)
        _write(config.kafka, history)
        floors = [_floor(config, floor_s, seed=1)]
        with closing(KillableEngine(config, Path(folder) / "engine.log")) as engine:
            print("starting the engine", flush=True)
            engine.wait_until_serving()
            push_and_wait(engine.address, _weights(config), 1)
            print("measuring the engine", flush=True)
            before = engine.metrics()
            waits_ms, late = _measure(config, engine.address, engine_s, seed=2)
            after = engine.metrics()
        floors.append(_floor(config, floor_s, seed=3))
    _report(waits_ms, floors, late, _stages(before, after), broker.name)


def _config(kafka: dict[str, object], folder: Path) -> Config:
    return Config(
        kafka=KafkaConfig(**kafka, events_partitions=2),
        state=StateConfig(max_users=100_000, max_items=50_000),
        snapshot=SnapshotConfig(dir=folder / "snapshots", engine="freshness", interval_s=3600.0),
    )


def _write(kafka: KafkaConfig, count: int) -> None:
    events = Events(USERS, ITEMS, seed=0)
    with closing(EventProducer(kafka)) as producer:
        write(producer.send_item(catalog_record(item)) for item in range(ITEMS))
        write(producer.send_event(events.next()[1]) for _ in range(count))


def _weights(config: Config) -> bytes:
    torch.manual_seed(0)
    shape = ModelShape(vocabulary=ITEMS, content_dim=config.state.content_dim, kinds=len(EventsConfig().kinds))
    model = Recommender(shape).eval().requires_grad_(False)
    return encode_weights(Weights(model, [item_id(item) for item in range(ITEMS)]))


def _floor(config: Config, seconds: float, seed: int) -> list[float]:
    with Talker("benchmarks.freshness_echo", str(STREAMS), env=environment(config)) as echo:
        address = echo.line().removeprefix("listens at ")
        assert echo.line() == "following"
        print("measuring the floor", flush=True)
        waits_ms, _ = _measure(config, address, seconds, seed)
        echo.end()
    return waits_ms


def _measure(config: Config, address: str, seconds: float, seed: int) -> tuple[list[float], float]:
    """Milliseconds from each click of a watched user to its list, and the share of events that were produced late."""
    with Talker("benchmarks.freshness_watch", address, str(STREAMS)) as watch:
        assert watch.line() == "open"
        with Producer(config.kafka, Events(USERS, ITEMS, seed), EVENTS_PER_S, STREAMS) as producer:
            begun_s = time.monotonic()
            time.sleep(_WARM_S + seconds)
        time.sleep(_SETTLE_S)
        came = json.loads(watch.end())
    clicks = [click for click in producer.clicks if click.at_s >= begun_s + _WARM_S]
    return _waits_ms(clicks, came), producer.late / producer.produced


def _waits_ms(clicks: Sequence[Click], came: Sequence[tuple[float, int, Mapping[str, int]]]) -> list[float]:
    by_user: dict[int, list[tuple[float, Mapping[str, int]]]] = {}
    for at_s, user, reflects in came:
        by_user.setdefault(user, []).append((at_s, reflects))
    waits_ms = []
    for click in clicks:
        partition = str(click.partition)
        first_s = next(
            (at_s for at_s, reflects in by_user[click.user] if reflects.get(partition, -1) >= click.offset),
            float("inf"),
        )
        waits_ms.append(1000 * (first_s - click.at_s))
    return waits_ms


def _stages(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds of each stage of a step, from the engine's metrics; and events per step."""
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    steps = grown['ousel_step_seconds_count{stage="fold"}']
    stages = {
        name.split('"')[1]: round(1000 * grown[name] / steps, 2)
        for name in grown
        if name.startswith("ousel_step_seconds_sum")
    }
    return {**stages, "events": round(grown["ousel_events_folded_total"] / steps, 1)}


def _report(
    waits_ms: list[float], floors: Sequence[Sequence[float]], late: float, stages: Mapping[str, float], broker: str
) -> None:
    p50_ms, p99_ms = (float(np.percentile(waits_ms, q, method="higher")) for q in (50, 99))
    floor_p50_ms, floor_p99_ms = (
        float(np.median([np.percentile(floor, q, method="higher") for floor in floors])) for q in (50, 99)
    )
    figures: dict[str, Figure] = {
        "p50_ms": round(p50_ms, 2),
        "p99_ms": round(p99_ms, 2),
        "floor_p50_ms": round(floor_p50_ms, 2),
        "floor_p99_ms": round(floor_p99_ms, 2),
        "p50_ratio": round(p50_ms / floor_p50_ms, 2),
        "p99_ratio": round(p99_ms / floor_p99_ms, 2),
        "clicks": len(waits_ms),
        "never": waits_ms.count(float("inf")),
        "late_share": round(late, 4),
        **{f"step_{name}" + ("" if name == "events" else "_ms"): value for name, value in stages.items()},
        "streams": STREAMS,
        "events_per_s": EVENTS_PER_S,
        "items": ITEMS,
        "broker": broker,
    }
    rows = [
        (f"click to list, {len(waits_ms):,} clicks: p50 and p99", f"{p50_ms:.1f} ms, {p99_ms:.1f} ms"),
        ("the same where an engine only echoes", f"{floor_p50_ms:.1f} ms, {floor_p99_ms:.1f} ms"),
        ("ratios", f"{figures['p50_ratio']}, {figures['p99_ratio']}"),
        ("lists that never came", f"{figures['never']}"),
        ("events produced over 10 ms late", f"{late:.1%}"),
        (
            f"a step, {stages['events']} events",
            ", ".join(f"{name} {stages[name]} ms" for name in stages if name != "events"),
        ),
    ]
    report("freshness", f"{STREAMS} streams, {EVENTS_PER_S:,} events/s over {ITEMS:,} items", rows, figures)


if __name__ == "__main__":
    main()
