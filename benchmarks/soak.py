"""Whether the engine at work grows: an hour's soak compressed to ten minutes.

    python -m benchmarks.soak [--quick]
    python -m benchmarks.soak --hostile [--quick]

An engine in a process of its own follows a broker, with 100 streams open, lists asked for at a steady rate and catalog
records that change. First it is offered as many events as this machine can produce, for a few seconds: what it folds of
them meanwhile is its capacity here. Then 70% of that, for the rest of the time, a tenth of them by users who come once,
so that it is full and the longest idle make room; while a model is pushed early on, and asked for as many users' lists
as it keeps sessions of (these caches would else take the ten minutes to fill), snapshots are taken, and 1,000 streams
are opened and dropped in ten waves: half of the waves close theirs, the processes of the others are killed.

    slope_mb_per_min     of the resident memory of the engine and the process that reads for it, by least squares over
                         the second half; slope_share_per_min is its share of the memory
    slope_error          two standard errors of it
    backlog_per_min      growth of the records that are not folded yet, likewise, with backlog_error; backlog_end: how
                         many at the end
    streams_left         open at the end, by the engine's own count: wanted 0
    failed_calls         calls, streams and events that did not end as they should: wanted 0
    threads, files       of the engine before the load and after it

It ends with 1 where a call failed or a stream was left. With `--hostile` see `benchmarks.soak_hostile`.
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # or what it does at a fork ends the processes started here

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import ousel
import torch

from benchmarks.freshness_load import K, Producer
from benchmarks.recovery_engine import KillableEngine
from benchmarks.report import Figure, report, shown
from benchmarks.shop_log import Events, catalog_record, user_id
from benchmarks.soak_engine import (
    ITEMS,
    TIMEOUT_S,
    USERS,
    VISITORS,
    Sample,
    Watch,
    drain,
    failed,
    push_model,
    slope,
    soak_config,
    write_log,
)
from benchmarks.soak_hostile import soak_hostile
from benchmarks.talker import Talker
from deploy.local.brokers import start_broker
from engine.config import Config
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics

_SHARE = 0.7  # of the capacity
_FASTEST = 100_000.0  # events/s: more than can be produced
_STREAMS = 100  # of a wave
_CALLS_PER_S, _ITEMS_PER_S = 20, 10
_ASKING = 16  # at a time: few enough that none is refused


class Load:
    """Calls and catalog records at a steady rate, in a thread of its own, in a `with`."""

    def __init__(self, config: Config, address: str) -> None:
        self.failures: list[str] = []
        self.calls = 0
        self._config, self._address = config, address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        chance, turn = np.random.default_rng(5), 0
        with ousel.Client(self._address) as client, closing(EventProducer(self._config.kafka)) as producer:
            while not self._stop.wait(1 / _CALLS_PER_S):
                turn += 1
                self.calls += 1
                try:
                    client.recommend(user_id(int(chance.integers(USERS))), k=20)
                except ousel.OuselError as error:
                    self.failures.append(f"call: {error}")
                if turn % (_CALLS_PER_S // _ITEMS_PER_S) == 0:
                    number = int(chance.integers(2 * ITEMS))
                    deleted = bool(chance.random() < 0.2)
                    producer.send_item(catalog_record(number, f"Title {turn}", deleted=deleted))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="14 s of it and four waves, in place of ten minutes")
    parser.add_argument("--hostile", action="store_true", help="hostile callers and input for 15 minutes, or 5")
    arguments = parser.parse_args()
    if arguments.hostile:
        return soak_hostile(300.0 if arguments.quick else 900.0)
    quick = arguments.quick
    probe_s, soak_s, waves = (3.0, 14.0, 4) if quick else (15.0, 600.0, 10)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ousel-soak-") as folder, start_broker(Path(folder) / "broker") as broker:
        config = soak_config(broker.client_settings(), Path(folder))
        print(f"broker: {broker.name}", flush=True)
        ensure_topics(config.kafka)
        write_log(config.kafka)
        with closing(KillableEngine(config, Path(folder) / "engine.log")) as engine:
            engine.wait_until_serving()
            failures: list[str] = []
            push_model(engine.address, 1, failures)
            watch = Watch(engine)
            before = watch.handles()
            with Load(config, engine.address) as load:
                capacity, produced = _capacity(config, engine, probe_s)
                print(f"capacity {capacity:,.0f} events/s of {produced:,.0f} produced", flush=True)
                drain(engine)
                lost = _soak(config, engine, watch, _SHARE * capacity, soak_s, waves)
            drain(engine)
            engine.wait_until("to have no stream", lambda: engine.metrics()["ousel_streams"] == 0)
            after, end = watch.handles(), engine.metrics()
    failures += load.failures + lost
    figures = _figures(watch.samples, before, after, end)
    figures |= {
        "capacity_events_per_s": round(capacity),
        "offered_events_per_s": round(_SHARE * capacity),
        "calls": load.calls,
        "failed_calls": len(failures) + int(sum(v for n, v in end.items() if failed(n))),
        "streams_opened": waves * _STREAMS,
        "seconds": soak_s,
        "broker": broker.name,
    }
    for failure in failures[:10]:
        print(failure, file=sys.stderr)
    _report(figures)
    return 1 if figures["failed_calls"] or figures["streams_left"] else 0


def _capacity(config: Config, engine: KillableEngine, seconds: float) -> tuple[float, float]:
    """Events folded, and produced, per second while as many as possible are produced."""
    with (
        Talker("benchmarks.soak_streams", engine.address, "0", str(_STREAMS)) as streams,
        Producer(config.kafka, Events(USERS, ITEMS, 1, VISITORS), _FASTEST, 0) as producer,
    ):
        streams.line()
        before = _folded(engine)
        engine.wait_until("to fold the first events", lambda: _folded(engine) > before)
        began_s, folded, produced = time.monotonic(), _folded(engine), producer.produced
        time.sleep(seconds)
        took_s = time.monotonic() - began_s
        return (_folded(engine) - folded) / took_s, (producer.produced - produced) / took_s


def _folded(engine: KillableEngine) -> float:
    found = engine.metrics()
    return found["ousel_events_folded_total"] + found.get("ousel_events_duplicate_total", 0.0)


def _soak(config: Config, engine: KillableEngine, watch: Watch, per_s: float, seconds: float, waves: int) -> list[str]:
    """Returns what went wrong."""
    wrong: list[str] = []
    began_s = time.monotonic()
    pushing = threading.Thread(target=_renew, args=(config, engine.address, wrong), daemon=True)
    with Producer(config.kafka, Events(USERS, ITEMS, 2, VISITORS), per_s, 0):
        for wave in range(waves):
            address, first = engine.address, wave * _STREAMS
            with Talker("benchmarks.soak_streams", address, str(first), str(_STREAMS)) as streams:
                if streams.line() != "open":
                    wrong.append(f"wave {wave}: its streams did not open")
                until_s = began_s + (wave + 1) * seconds / waves
                while watch.look().at_s < until_s:
                    time.sleep(min(1.0, max(0.0, until_s - time.monotonic())))
                if wave == 1:
                    pushing.start()
                if wave % 2 == 0:
                    streams.end()
            sample = watch.samples[-1]
            print(f"wave {wave + 1}: {sample.rss_mb:,.0f} MB, backlog {sample.backlog:,.0f}", flush=True)
    pushing.join()
    return wrong


def _renew(config: Config, address: str, wrong: list[str]) -> None:
    """Pushes a second model, then asks for as many users' lists as it keeps sessions: what is bounded is full then."""
    push_model(address, 2, wrong)

    async def ask(client: ousel.AsyncClient, users: Iterator[int]) -> None:
        for user in users:
            await client.recommend(user_id(user), k=K, timeout_s=TIMEOUT_S)

    async def ask_all() -> None:
        users = iter(range(min(USERS, config.inference.sessions)))
        async with ousel.AsyncClient(address) as client:
            await asyncio.gather(*(ask(client, users) for _ in range(_ASKING)))

    try:
        asyncio.run(ask_all())
    except ousel.OuselError as error:
        wrong.append(f"call: {error}")


def _figures(
    samples: Sequence[Sample], before: tuple[int, int], after: tuple[int, int], end: dict[str, float]
) -> dict[str, Figure]:
    warm = samples[len(samples) // 2 :]
    at_min = [sample.at_s / 60 for sample in warm]
    steep, error = slope(at_min, [sample.rss_mb for sample in warm])
    growth, growth_error = slope(at_min, [sample.backlog for sample in warm])
    memory = warm[-1].rss_mb
    return {
        "rss_start_mb": round(samples[0].rss_mb, 1),
        "rss_warm_mb": round(warm[0].rss_mb, 1),
        "rss_end_mb": round(memory, 1),
        "slope_mb_per_min": round(steep, 2),
        "slope_error": round(error, 2),
        "slope_share_per_min": round(steep / memory, 5),
        "backlog_per_min": round(growth, 1),
        "backlog_error": round(growth_error, 1),
        "backlog_most": max(sample.backlog for sample in warm),
        "backlog_end": warm[-1].backlog,
        "dirty_rows_end": warm[-1].dirty_rows,
        "sessions_kept": int(end["ousel_sessions_cached"]),
        "streams_left": int(end["ousel_streams"]),
        "users_evicted": int(end["ousel_users_evicted_total"]),
        "threads_before": before[0],
        "threads_after": after[0],
        "files_before": before[1],
        "files_after": after[1],
    }


def _report(figures: dict[str, Figure]) -> None:
    rows = [
        ("events/s offered, and folded at most", shown(figures, "offered_events_per_s", "capacity_events_per_s")),
        (
            "MB of memory at the start, once warm, at the end",
            shown(figures, "rss_start_mb", "rss_warm_mb", "rss_end_mb"),
        ),
        ("MB it grows by per minute once warm, give or take", shown(figures, "slope_mb_per_min", "slope_error")),
        ("backlog: growth per minute, give or take", shown(figures, "backlog_per_min", "backlog_error")),
        ("backlog: most, at the end", shown(figures, "backlog_most", "backlog_end")),
        ("streams opened, left", shown(figures, "streams_opened", "streams_left")),
        ("calls, failed", shown(figures, "calls", "failed_calls")),
        ("threads before and after", shown(figures, "threads_before", "threads_after")),
        ("open files before and after", shown(figures, "files_before", "files_after")),
    ]
    report("soak", f"{figures['seconds']:g} s at {_SHARE:.0%} of capacity", rows, figures)


if __name__ == "__main__":
    sys.exit(main())
