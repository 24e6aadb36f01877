"""Whether the engine at work grows: an hour's soak compressed to ten minutes.

    python -m benchmarks.soak [--quick]

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

It ends with 1 where a call failed or a stream was left.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ousel
import psutil
import torch
from ousel.v1 import catalog_pb2

from benchmarks.freshness_load import Events, K, Producer, item_id, user_id
from benchmarks.recovery_engine import KillableEngine
from benchmarks.report import Figure, report
from benchmarks.swap_models import honest
from benchmarks.talker import Talker
from deploy.local.brokers import start_broker
from engine.config import Config, KafkaConfig, SnapshotConfig, StateConfig
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics
from engine.model.weights import encode_weights
from trainer.push import push

_USERS, _MAX_USERS, _ITEMS = 4000, 8000, 5000
_VISITORS = 0.1
_SHARE = 0.7  # of the capacity
_FASTEST = 100_000.0  # events/s: more than can be produced
_STREAMS = 100  # of a wave
_CALLS_PER_S, _ITEMS_PER_S = 20, 10
_ASKING = 16  # at a time: few enough that none is refused
_TIMEOUT_S = 300.0
_MB = 2**20


@dataclass(frozen=True)
class Sample:
    """The engine at one moment."""

    at_s: float
    rss_mb: float
    backlog: float
    dirty_rows: float


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
                    client.recommend(user_id(int(chance.integers(_USERS))), k=20)
                except ousel.OuselError as error:
                    self.failures.append(f"call: {error}")
                if turn % (_CALLS_PER_S // _ITEMS_PER_S) == 0:
                    number = int(chance.integers(2 * _ITEMS))
                    producer.send_item(
                        catalog_pb2.Item(
                            item_id=item_id(number), title=f"Title {turn}", categories=[f"c{turn % 50}"],
                            deleted=bool(chance.random() < 0.2),
                        )
                    )  # fmt: skip


class Watch:
    """Samples the engine once a second."""

    def __init__(self, engine: KillableEngine) -> None:
        self.samples: list[Sample] = []
        self._engine = engine
        self._processes = [psutil.Process(engine.pid), *psutil.Process(engine.pid).children(recursive=True)]

    def look(self) -> Sample:
        found = self._engine.metrics()
        rss = sum(process.memory_info().rss for process in self._processes)
        backlog = sum(value for name, value in found.items() if name.startswith("ousel_lag_records{"))
        self.samples.append(Sample(time.monotonic(), rss / _MB, backlog, found.get("ousel_dirty_rows", 0.0)))
        return self.samples[-1]

    def handles(self) -> tuple[int, int]:
        """Threads and open files of the engine."""
        return self._processes[0].num_threads(), self._processes[0].num_fds()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="14 s of it and four waves, in place of ten minutes")
    quick = parser.parse_args().quick
    probe_s, soak_s, waves = (3.0, 14.0, 4) if quick else (15.0, 600.0, 10)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ousel-soak-") as folder, start_broker(Path(folder) / "broker") as broker:
        config = _config(broker.client_settings(), Path(folder))
        print(f"broker: {broker.name}", flush=True)
        ensure_topics(config.kafka)
        _write(config.kafka)
        with closing(KillableEngine(config, Path(folder) / "engine.log")) as engine:
            engine.wait_until_serving()
            failures: list[str] = []
            _push(engine.address, 1, failures)
            watch = Watch(engine)
            before = watch.handles()
            with Load(config, engine.address) as load:
                capacity, produced = _capacity(config, engine, probe_s)
                print(f"capacity {capacity:,.0f} events/s of {produced:,.0f} produced", flush=True)
                _drain(engine)
                lost = _soak(config, engine, watch, _SHARE * capacity, soak_s, waves)
            _drain(engine)
            engine.wait_until("to have no stream", lambda: engine.metrics()["ousel_streams"] == 0)
            after, end = watch.handles(), engine.metrics()
    failures += load.failures + lost
    figures = _figures(watch.samples, before, after, end)
    figures |= {
        "capacity_events_per_s": round(capacity),
        "offered_events_per_s": round(_SHARE * capacity),
        "calls": load.calls,
        "failed_calls": len(failures) + int(sum(v for n, v in end.items() if _failed(n))),
        "streams_opened": waves * _STREAMS,
        "seconds": soak_s,
        "broker": broker.name,
    }
    for failure in failures[:10]:
        print(failure, file=sys.stderr)
    _report(figures)
    return 1 if figures["failed_calls"] or figures["streams_left"] else 0


def _config(kafka: dict[str, object], folder: Path) -> Config:
    return Config(
        kafka=KafkaConfig(**kafka, events_partitions=2),
        state=StateConfig(max_users=_MAX_USERS, max_items=2 * _ITEMS),
        snapshot=SnapshotConfig(dir=folder / "snapshots", engine="soak", interval_s=20.0),
    )


def _write(kafka: KafkaConfig) -> None:
    events = Events(_USERS, _ITEMS, 0, _VISITORS)
    with closing(EventProducer(kafka, max_pending=100_000)) as producer:
        sent = [
            producer.send_item(
                catalog_pb2.Item(item_id=item_id(item), title=f"Title of item {item}", categories=[f"c{item % 50}"])
            )
            for item in range(_ITEMS)
        ]
        sent += [producer.send_event(events.next()[1]) for _ in range(60_000)]
        for future in sent:
            future.result(_TIMEOUT_S)


def _capacity(config: Config, engine: KillableEngine, seconds: float) -> tuple[float, float]:
    """Events folded, and produced, per second while as many as possible are produced."""
    with (
        Talker("benchmarks.soak_streams", engine.address, "0", str(_STREAMS)) as streams,
        Producer(config.kafka, Events(_USERS, _ITEMS, 1, _VISITORS), _FASTEST, 0) as producer,
    ):
        streams.line()
        time.sleep(1.0)  # until the engine has something to do
        began_s, folded, produced = time.monotonic(), _folded(engine), producer.produced
        time.sleep(seconds)
        took_s = time.monotonic() - began_s
        return (_folded(engine) - folded) / took_s, (producer.produced - produced) / took_s


def _folded(engine: KillableEngine) -> float:
    found = engine.metrics()
    return found["ousel_events_folded_total"] + found.get("ousel_events_duplicate_total", 0.0)


def _drain(engine: KillableEngine) -> None:
    def drained() -> bool:
        return not any(value for name, value in engine.metrics().items() if name.startswith("ousel_lag_records{"))

    engine.wait_until("to fold what is there", drained, 0.2)


def _soak(config: Config, engine: KillableEngine, watch: Watch, per_s: float, seconds: float, waves: int) -> list[str]:
    """Returns what went wrong."""
    wrong: list[str] = []
    began_s = time.monotonic()
    pushing = threading.Thread(target=_renew, args=(config, engine.address, wrong), daemon=True)
    with Producer(config.kafka, Events(_USERS, _ITEMS, 2, _VISITORS), per_s, 0):
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


def _push(address: str, version: int, wrong: list[str]) -> None:
    names = [item_id(item) for item in range(_ITEMS)]
    try:
        push(address, encode_weights(honest(names, version)), version, {}, _TIMEOUT_S)
    except Exception as error:  # whatever it is, the run is not what it should be
        wrong.append(f"push: {error}")


def _renew(config: Config, address: str, wrong: list[str]) -> None:
    """Pushes a second model, then asks for as many users' lists as it keeps sessions: what is bounded is full then."""
    _push(address, 2, wrong)

    async def ask(client: ousel.AsyncClient, users: Iterator[int]) -> None:
        for user in users:
            await client.recommend(user_id(user), k=K, timeout_s=_TIMEOUT_S)

    async def ask_all() -> None:
        users = iter(range(min(_USERS, config.inference.sessions)))
        async with ousel.AsyncClient(address) as client:
            await asyncio.gather(*(ask(client, users) for _ in range(_ASKING)))

    try:
        asyncio.run(ask_all())
    except ousel.OuselError as error:
        wrong.append(f"call: {error}")


def _failed(name: str) -> bool:
    """Whether a series counts calls that ended as they should not: neither well nor by the client's will."""
    ended_well = any(f'code="{code}"' in name for code in ("OK", "CANCELLED"))
    return name.startswith("ousel_calls_total{") and not ended_well


def slope(at_min: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Per minute by least squares, and two standard errors of it."""
    x, y = np.asarray(at_min), np.asarray(values)
    (steep, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(steep), 2 * float(np.sqrt(covariance[0, 0]))


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
        "users_evicted": int(end["ousel_users_evicted"]),
        "threads_before": before[0],
        "threads_after": after[0],
        "files_before": before[1],
        "files_after": after[1],
    }


def _report(figures: dict[str, Figure]) -> None:
    def shown(*names: str) -> str:
        return ", ".join(f"{figures[name]:,}" for name in names)

    rows = [
        ("events/s offered, and folded at most", shown("offered_events_per_s", "capacity_events_per_s")),
        ("MB of memory at the start, once warm, at the end", shown("rss_start_mb", "rss_warm_mb", "rss_end_mb")),
        ("MB it grows by per minute once warm, give or take", shown("slope_mb_per_min", "slope_error")),
        ("backlog: growth per minute, give or take", shown("backlog_per_min", "backlog_error")),
        ("backlog: most, at the end", shown("backlog_most", "backlog_end")),
        ("streams opened, left", shown("streams_opened", "streams_left")),
        ("calls, failed", shown("calls", "failed_calls")),
        ("threads before and after", shown("threads_before", "threads_after")),
        ("open files before and after", shown("files_before", "files_after")),
    ]
    report("soak", f"{figures['seconds']:g} s at {_SHARE:.0%} of capacity", rows, figures)


if __name__ == "__main__":
    sys.exit(main())
