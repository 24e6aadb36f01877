"""The engine as it is seen from outside: its status, and its gauges."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import Counter

from engine import metrics
from engine.config import StateConfig
from engine.events.source import EventSource, Partition
from engine.generation import Generation
from engine.log_fields import of_model
from engine.ranking.query import Position
from engine.state.slice import Slice
from engine.state.state import State

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineStatus:
    """The figures that GetStatus shows."""

    ready: bool
    caught_up: bool  # with all that the log held when partitions last came
    model_version: int
    model_metrics: Mapping[str, float]
    model_versions: tuple[int, ...]
    users: int
    items: int
    index_items: int
    events_folded: int
    items_folded: int
    events_dead_lettered: int
    lag: int
    reflects: tuple[Position, ...]
    uptime_s: float
    partitions: tuple[int, ...]  # of the events topic, that are read here
    partitions_total: int
    users_limit: int
    users_evicted: int
    items_evicted: int
    users_forgotten: int
    events_duplicate: int
    records_redelivered: int
    targets: int  # of relations
    targets_evicted: int
    snapshot_time_s: float | None  # since 1970, when the newest snapshot of this run was written


def look(
    state: State,
    generation: Generation | None,
    source: EventSource | None,
    *,
    ready: bool,
    caught_up: bool,
    model_versions: tuple[int, ...],
    dead_lettered: int,
    started_s: float,
    snapshot_time_s: float | None,
) -> EngineStatus:
    """A look from any thread; each number is current, though not all of the same instant."""
    slices = {partition: placed.slice for partition, placed in list(state.slices.items())}
    positions = sorted(state.positions.items())
    return EngineStatus(
        ready=ready,
        caught_up=caught_up,
        model_version=generation.version if generation else 0,
        model_metrics=dict(generation.metrics) if generation else {},
        model_versions=model_versions,
        users=state.user_count,
        items=state.items.count,
        index_items=generation.index.size if generation else 0,
        events_folded=state.events_folded,
        items_folded=state.items_folded,
        events_dead_lettered=dead_lettered,
        lag=source.lag() if source else 0,
        reflects=tuple(Position(t, p, offset - 1) for (t, p), offset in positions if t == state.events_topic),
        uptime_s=time.monotonic() - started_s,
        partitions=tuple(slices),
        partitions_total=state.partitions,
        users_limit=sum(one.users.limit for one in slices.values()),
        users_evicted=sum(one.evicted_users for one in slices.values()),
        items_evicted=sum(one.evicted_items for one in slices.values()),
        users_forgotten=sum(one.forgotten for one in slices.values()),
        events_duplicate=sum(one.duplicates for one in slices.values()),
        records_redelivered=state.redelivered,
        targets=sum(len(one.relations.targets) for one in slices.values()),
        targets_evicted=sum(one.evicted_targets for one in slices.values()),
        snapshot_time_s=snapshot_time_s,
    )


def announce(generation: Generation | None) -> None:
    """Says which model serves from now on, or that none does any more."""
    metrics.MODEL_VERSION.set(generation.version if generation else 0)
    metrics.MODEL_TIME.set(generation.made_s if generation else 0)
    if generation is None:
        _log.warning("no model serves any more: lists come from the best scorer that counts")
        return
    version, size = generation.version, generation.index.size
    _log.info("model version %d serves, %d items in its index", version, size, extra=of_model(version))


class RisingCount:
    """Raises a counter by what the counts of its owners have risen, whichever owners come and go.

    A count may come with an owner, such as a partition out of a snapshot, and go with it; a counter never falls, and it
    starts at 0 with the process.

    Args:
        from_zero: the count of an owner that comes belongs to this process.
    """

    def __init__(self, counter: Counter, *, from_zero: bool = False) -> None:
        self._counter = counter
        self._from_zero = from_zero
        self._seen: dict[int, tuple[object, int]] = {}  # by the owner's id, which is its own while the owner is held

    def observe(self, counts: Iterable[tuple[object, int]]) -> None:
        """Takes the counts of all owners that there are now."""
        seen: dict[int, tuple[object, int]] = {}
        for owner, count in counts:
            first = 0 if self._from_zero else count
            before = self._seen[id(owner)][1] if id(owner) in self._seen else first
            self._counter.inc(max(0, count - before))
            seen[id(owner)] = owner, count
        self._seen = seen


class PartitionGauges:
    """The gauges of each partition that is read here. They go when another engine gets the partition.

    Else the lag that it had here would be added to that of its new owner, and a hold would never end.
    """

    def __init__(self) -> None:
        self._shown: set[Partition] = set()

    def observe(self, source: EventSource) -> None:
        """Sets them; called by the engine's thread after a step."""
        held, stable_offsets, lag = source.held(), source.stable_offsets(), source.lag_by_partition()
        for (topic, partition), records in lag.items():
            metrics.LAG.labels(topic, partition).set(records)
            metrics.HELD.labels(topic, partition).set((topic, partition) in held)
            if (topic, partition) in stable_offsets:
                metrics.STABLE_OFFSET.labels(topic, partition).set(stable_offsets[topic, partition])
        for topic, partition in self._shown - lag.keys():
            for gauge in (metrics.LAG, metrics.HELD, metrics.STABLE_OFFSET):
                gauge.remove(topic, partition)
        self._shown = set(lag)


class StateMetrics:
    """The metrics of the state, of the serving model and of the log. Only the engine's thread calls it."""

    def __init__(self, config: StateConfig) -> None:
        metrics.ITEMS_LIMIT.set(config.max_items)
        metrics.TARGETS_LIMIT.set(config.max_targets)
        self._of_slices: dict[RisingCount, Callable[[Slice], int]] = {
            RisingCount(metrics.USERS_EVICTED): lambda one: one.evicted_users,
            RisingCount(metrics.USERS_FORGOTTEN): lambda one: one.forgotten,
            RisingCount(metrics.ITEMS_EVICTED): lambda one: one.evicted_items,
            RisingCount(metrics.TARGETS_EVICTED): lambda one: one.evicted_targets,
            RisingCount(metrics.DUPLICATES): lambda one: one.duplicates,
        }
        self._partitions = PartitionGauges()
        self._redelivered = RisingCount(metrics.REDELIVERED)
        self._catalog_evicted = RisingCount(metrics.CATALOG_EVICTED)
        self._probes = RisingCount(metrics.INDEX_PROBES, from_zero=True)
        self._rebuild_failures = RisingCount(metrics.INDEX_REBUILD_FAILURES, from_zero=True)

    def count(self, state: State) -> None:
        """Raises the counters of the state; to be called before anything is folded into partitions that came, too."""
        slices = [placed.slice for placed in state.slices.values()]
        for rising, count in self._of_slices.items():
            rising.observe((one, count(one)) for one in slices)
        self._redelivered.observe([(state, state.items_redelivered), *((one, one.redelivered) for one in slices)])
        self._catalog_evicted.observe([(state.records, state.records.evicted)])

    def observe(self, state: State, generation: Generation | None, source: EventSource) -> None:
        """Sets the gauges and raises the counters; to be called after a step."""
        self.count(state)
        self._partitions.observe(source)
        slices = [placed.slice for placed in state.slices.values()]
        metrics.USERS.set(state.user_count)
        metrics.USERS_LIMIT.set(sum(one.users.limit for one in slices))
        metrics.ITEMS.set(state.items.count)
        metrics.ITEMS_AVAILABLE.set(state.availability.count)
        metrics.ITEMS_WAITING.set(state.availability.waiting)
        metrics.CATALOG_WANTED.set(state.records.wanted)
        metrics.TARGETS.set(sum(len(one.relations.targets) for one in slices))
        metrics.PARTITIONS.set(len(slices))
        if generation:
            index = generation.index
            metrics.DIRTY_ROWS.set(generation.embedder.backlog)
            metrics.INDEX_SIZE.set(index.size)
            metrics.INDEX_DELTA.set(index.delta_size)
            metrics.INDEX_RECALL.set(index.graph_recall)
            metrics.INDEX_LIVE_RECALL.set(index.live_recall)
            metrics.INDEX_UNREACHABLE.set(index.unreachable)
            self._probes.observe([(index, index.probes)])
            self._rebuild_failures.observe([(index, index.failures)])
