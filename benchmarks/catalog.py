"""Measures the cost of catalog changes under many streams: a record a second, popular items, and a nightly upload.

    python -m benchmarks.catalog [--quick]

An engine in a process of its own follows a broker and serves a model; 3,000 streams are open, each of a user of its
own. The processor time of the engine, and of the process that reads for it, is taken from the system in turns:

1. while nothing happens;
2. while one record a second gives an item, drawn at random, another title;
3. the same with the most popular items, which are candidates of every list;
4. while the whole catalog is sent again, each record with another title, and single lists are asked for: how late they
   are, beside how late they are while nothing happens.

    core_records         of a core, that one record a second costs: (2) less (1); wanted at most 0.1
    core_popular         the same of popular items: (3) less (1)
    upload_lists         lists that streams got per record of the upload; a list per stream and record would be 3,000
    upload_p99_ratio     p99 of single lists during the upload, and while nothing happens, as a ratio
    late_streams         streams whose list still shows an old title 60 s after the upload's end: wanted 0

It ends with 1 where a stream ended or stayed late.
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # or what it does at a fork ends the processes started here

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event, Thread

import numpy as np
import ousel
import torch
from ousel.v1 import event_pb2

from benchmarks.recovery_engine import KillableEngine, lags
from benchmarks.report import Figure, report, shown
from benchmarks.shop_log import Events, catalog_record, item_id, user_id, write
from benchmarks.swap_models import push_honest
from benchmarks.talker import Talker
from deploy.local.brokers import start_broker
from engine.config import Config, KafkaConfig, SnapshotConfig, StateConfig
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics

STREAMS, _PROCESSES = 3000, 3
_EVENTS = 60_000
_POPULAR = 20
_CALLS_PER_S = 50
_LATE_S = 60.0


class Catalog:
    """The items of the shop, as records of the catalog."""

    def __init__(self, kafka: KafkaConfig, items: int) -> None:
        self.items = items
        self.sent = 0
        self._producer = EventProducer(kafka)

    def send(self, item: int) -> Future[event_pb2.LogPosition]:
        """A record with a title that the item did not have before."""
        self.sent += 1
        return self._producer.send_item(catalog_record(item, f"Title {self.sent} of item {item}"))

    def send_all(self) -> None:
        """A record of each item; returns once the log has them."""
        write(self.send(item) for item in range(self.items))

    def close(self) -> None:
        self._producer.close()


class Calls:
    """Single lists at a steady rate in a thread of its own, and how late they were, in a `with`."""

    def __init__(self, address: str) -> None:
        self.late_s: list[float] = []
        self._address = address
        self._stop = Event()
        self._thread = Thread(target=self._run, name="calls", daemon=True)

    @property
    def p99_ms(self) -> float:
        return 1000 * float(np.percentile(self.late_s, 99))

    def __enter__(self) -> Calls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        draw = np.random.default_rng(7)
        with ousel.Client(self._address) as client:
            while not self._stop.wait(1 / _CALLS_PER_S):
                began_s = time.perf_counter()
                client.recommend(user_id(int(draw.integers(STREAMS))), k=20)
                self.late_s.append(time.perf_counter() - began_s)


class Shop:
    """The engine under its streams."""

    def __init__(self, engine: KillableEngine, catalog: Catalog) -> None:
        self.engine, self.catalog = engine, catalog
        self._processes = engine.processes()

    def core(self, seconds: float, each_s: Callable[[], object] = lambda: None) -> float:
        """Of a core, that is spent while something is done once a second."""
        began_s, spent_s = time.monotonic(), self._cpu_s()
        for turn in range(round(seconds)):
            each_s()
            time.sleep(max(0.0, began_s + turn + 1 - time.monotonic()))
        return (self._cpu_s() - spent_s) / (time.monotonic() - began_s)

    def lists(self) -> float:
        """Lists pushed on streams because of the catalog so far."""
        return self.engine.metrics().get('ousel_lists_pushed_total{cause="catalog"}', 0.0)

    def settle(self, idle_s: float = 2.0) -> None:
        """Waits until the streams have had all that the log says."""

        def settled() -> bool:
            found = self.engine.metrics()
            return not any(lags(found)) and found["ousel_streams_stale"] == 0

        self.engine.wait_until("to tell the streams", settled, 0.5)
        time.sleep(idle_s)

    def _cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalog", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5,000 items and turns of 8 s")
    quick = parser.parse_args().quick
    items, seconds = (5_000, 8.0) if quick else (20_000, 30.0)
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory(prefix="ousel-catalog-") as folder,
        start_broker(Path(folder) / "broker") as broker,
        ExitStack() as stack,
    ):
        config = Config(
            kafka=KafkaConfig(**broker.client_settings(), events_partitions=2),
            state=StateConfig(max_users=2 * STREAMS, max_items=2 * items),
            snapshot=SnapshotConfig(dir=Path(folder) / "snapshots", engine="catalog", interval_s=3600.0),
        )
        ensure_topics(config.kafka)
        catalog = stack.enter_context(closing(Catalog(config.kafka, items)))
        popular = _write(config.kafka, catalog)
        engine = stack.enter_context(closing(KillableEngine(config, Path(folder) / "engine.log")))
        engine.wait_until_serving()
        names = [item_id(item) for item in range(items)]
        push_honest(engine.address, names, 1)
        for at in range(_PROCESSES):
            count = STREAMS // _PROCESSES
            streams = Talker("benchmarks.soak_streams", engine.address, str(at * count), str(count))
            stack.enter_context(streams)
            if streams.line() != "open":
                raise SystemExit("the streams did not open")
        figures = _measure(Shop(engine, catalog), popular, seconds)
        figures |= {"items": items, "streams": STREAMS, "seconds": seconds, "broker": broker.name}
    rows = [
        ("of a core, while nothing happens", shown(figures, "core_idle")),
        ("of a core, for one record a second", shown(figures, "core_records")),
        ("of a core, for one record a second of popular items", shown(figures, "core_popular")),
        ("lists per record, of popular items", shown(figures, "lists_per_record", "popular_lists_per_record")),
        (f"lists per record of an upload of {items:,}", shown(figures, "upload_lists")),
        ("ms, p99 of single lists before and during the upload", shown(figures, "p99_ms", "upload_p99_ms")),
        ("seconds until the streams had followed the upload", shown(figures, "upload_s")),
    ]
    report("catalog", f"Changes of a catalog of {items:,} items under {STREAMS:,} streams", rows, figures)
    return 1 if figures["streams_left"] != STREAMS or figures["late_streams"] else 0


def _write(kafka: KafkaConfig, catalog: Catalog) -> list[int]:
    """Fills the log; the most popular items."""
    events, count = Events(STREAMS, catalog.items, 0), np.zeros(catalog.items, np.int64)
    catalog.send_all()
    drawn = [events.next()[1] for _ in range(_EVENTS)]
    for event in drawn:
        count[int(event.item_id.removeprefix("item-"))] += 1
    with closing(EventProducer(kafka)) as producer:
        write(map(producer.send_event, drawn))
    popular: list[int] = np.argsort(-count)[:_POPULAR].tolist()
    return popular


def _measure(shop: Shop, popular: list[int], seconds: float) -> dict[str, Figure]:
    draw, catalog = np.random.default_rng(3), shop.catalog
    shop.settle()
    idle = shop.core(seconds)
    before = shop.lists()
    records = shop.core(seconds, lambda: catalog.send(int(draw.integers(catalog.items))))
    shop.settle()
    between = shop.lists()
    of_popular = shop.core(seconds, lambda: catalog.send(popular[int(draw.integers(_POPULAR))]))
    shop.settle()
    after = shop.lists()
    with Calls(shop.engine.address) as alone:
        time.sleep(seconds)
    began_s = time.monotonic()
    with Calls(shop.engine.address) as beside:
        catalog.send_all()
        time.sleep(seconds)
    late = 0.0
    while time.monotonic() < began_s + seconds + _LATE_S:
        late = shop.engine.metrics()["ousel_streams_stale"]
        if not late:
            break
        time.sleep(0.5)
    upload_s = time.monotonic() - began_s
    return {
        "core_idle": round(idle, 3),
        "core_records": round(records - idle, 3),
        "core_popular": round(of_popular - idle, 3),
        "lists_per_record": round((between - before) / seconds, 1),
        "popular_lists_per_record": round((after - between) / seconds, 1),
        "upload_lists": round((shop.lists() - after) / catalog.items, 2),
        "upload_s": round(upload_s, 1),
        "p99_ms": round(alone.p99_ms, 1),
        "upload_p99_ms": round(beside.p99_ms, 1),
        "upload_p99_ratio": round(beside.p99_ms / alone.p99_ms, 2),
        "late_streams": int(late),
        "streams_left": int(shop.engine.metrics()["ousel_streams"]),
    }


if __name__ == "__main__":
    sys.exit(main())
