"""The engine as it is seen from outside: its status, and its gauges."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from engine import metrics
from engine.config import StateConfig
from engine.events.source import EventSource, Partition
from engine.generation import Generation
from engine.ranking.query import Position
from engine.state.state import State


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


def observe(state: State, config: StateConfig, generation: Generation | None) -> None:
    """Sets the gauges but those of `PartitionGauges`; called by the engine's thread after a step."""
    slices = [placed.slice for placed in state.slices.values()]
    metrics.USERS.set(state.user_count)
    metrics.USERS_LIMIT.set(sum(one.users.limit for one in slices))
    metrics.USERS_EVICTED.set(sum(one.evicted_users for one in slices))
    metrics.USERS_FORGOTTEN.set(sum(one.forgotten for one in slices))
    metrics.ITEMS.set(state.items.count)
    metrics.ITEMS_AVAILABLE.set(state.availability.count)
    metrics.ITEMS_WAITING.set(state.availability.waiting)
    metrics.ITEMS_LIMIT.set(config.max_items)
    metrics.ITEMS_EVICTED.set(sum(one.evicted_items for one in slices))
    metrics.CATALOG_EVICTED.set(state.records.evicted)
    metrics.CATALOG_WANTED.set(state.records.wanted)
    metrics.TARGETS.set(sum(len(one.relations.targets) for one in slices))
    metrics.TARGETS_LIMIT.set(config.max_targets)
    metrics.TARGETS_EVICTED.set(sum(one.evicted_targets for one in slices))
    metrics.DUPLICATES.set(sum(one.duplicates for one in slices))
    metrics.REDELIVERED.set(state.redelivered)
    metrics.PARTITIONS.set(len(slices))
    if generation:
        metrics.DIRTY_ROWS.set(generation.embedder.backlog)
        metrics.INDEX_SIZE.set(generation.index.size)
        metrics.INDEX_DELTA.set(generation.index.delta_size)
        metrics.INDEX_RECALL.set(generation.index.graph_recall)
        metrics.INDEX_LIVE_RECALL.set(generation.index.live_recall)
        metrics.INDEX_PROBES.set(generation.index.probes)
        metrics.INDEX_UNREACHABLE.set(generation.index.unreachable)
        metrics.INDEX_REBUILD_FAILURES.set(generation.index.failures)


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
