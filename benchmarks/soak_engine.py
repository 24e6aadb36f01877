"""The engine as both soaks have it: its shop, its models, and what is watched of it once a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.recovery_engine import KillableEngine, lags
from benchmarks.shop_log import Events, catalog_record, item_id, write
from benchmarks.swap_models import push_honest
from engine.config import Config, KafkaConfig, SnapshotConfig, StateConfig
from engine.events.producer import EventProducer

USERS, MAX_USERS, ITEMS = 4000, 8000, 5000
VISITORS = 0.1
TIMEOUT_S = 300.0
_MB = 2**20


@dataclass(frozen=True)
class Sample:
    """The engine at one moment."""

    at_s: float
    rss_mb: float
    backlog: float
    dirty_rows: float


class Watch:
    """Samples the engine once a second."""

    def __init__(self, engine: KillableEngine) -> None:
        self.samples: list[Sample] = []
        self._engine = engine
        self._processes = engine.processes()

    def look(self) -> Sample:
        found = self._engine.metrics()
        rss = sum(process.memory_info().rss for process in self._processes)
        backlog = sum(lags(found))
        self.samples.append(Sample(time.monotonic(), rss / _MB, backlog, found.get("ousel_dirty_rows", 0.0)))
        return self.samples[-1]

    def handles(self) -> tuple[int, int]:
        """Threads and open files of the engine."""
        return self._processes[0].num_threads(), self._processes[0].num_fds()


def soak_config(kafka: dict[str, object], folder: Path) -> Config:
    return Config(
        kafka=KafkaConfig(**kafka, events_partitions=2),
        state=StateConfig(max_users=MAX_USERS, max_items=2 * ITEMS),
        snapshot=SnapshotConfig(dir=folder / "snapshots", engine="soak", interval_s=20.0),
    )


def write_log(kafka: KafkaConfig) -> None:
    events = Events(USERS, ITEMS, 0, VISITORS)
    with closing(EventProducer(kafka)) as producer:
        write(producer.send_item(catalog_record(item)) for item in range(ITEMS))
        write(producer.send_event(events.next()[1]) for _ in range(60_000))


def drain(engine: KillableEngine) -> None:
    engine.wait_until("to fold what is there", lambda: not any(lags(engine.metrics())), 0.2)


def push_model(address: str, version: int, wrong: list[str]) -> None:
    names = [item_id(item) for item in range(ITEMS)]
    try:
        push_honest(address, names, version)
    except Exception as error:  # whatever it is, the run is not what it should be
        wrong.append(f"push: {error}")


def failed(name: str) -> bool:
    """Whether a series counts calls that ended as they should not: neither well nor by the client's will."""
    ended_well = any(f'code="{code}"' in name for code in ("OK", "CANCELLED"))
    return name.startswith("ousel_calls_total{") and not ended_well


def least_of_each(samples: Sequence[Sample], began_s: float, period_s: float) -> tuple[list[float], list[float]]:
    """Minutes from the begin on, and the least MB, of each whole period that lies in the second half of the samples."""
    half_s = samples[len(samples) // 2].at_s - began_s
    least: dict[int, float] = {}
    for sample in samples:
        period = int((sample.at_s - began_s) // period_s)
        least[period] = min(sample.rss_mb, least.get(period, sample.rss_mb))
    whole = int((samples[-1].at_s - began_s + 1.0) // period_s)  # A sample a second: the last may lack up to one.
    kept = [period for period in sorted(least) if period * period_s >= half_s and period < whole]
    return [period * period_s / 60 for period in kept], [least[period] for period in kept]


def slope(at_min: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Per minute by least squares, and two standard errors of it."""
    x, y = np.asarray(at_min), np.asarray(values)
    (steep, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(steep), 2 * float(np.sqrt(covariance[0, 0]))
