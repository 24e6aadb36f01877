"""What can be seen of the partitions that are read here."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

from prometheus_client import REGISTRY

from engine import metrics
from engine.config import Config
from engine.events.source import EventSource, Partition
from engine.status import PartitionGauges, RisingCount, StateMetrics

SERIES = ("ousel_lag_records", "ousel_partition_held", "ousel_last_stable_offset")


def source(*partitions: Partition) -> EventSource:
    return SimpleNamespace(
        lag_by_partition=lambda: dict.fromkeys(partitions, 7),
        held=lambda: dict.fromkeys(partitions, "a codec is missing"),
        stable_offsets=lambda: dict.fromkeys(partitions, 90),
    )


def shown(partitions: Iterable[Partition]) -> dict[Partition, list[float | None]]:
    return {
        (topic, number): [
            REGISTRY.get_sample_value(name, {"topic": topic, "partition": str(number)}) for name in SERIES
        ]
        for topic, number in partitions
    }


def test_a_partition_that_another_engine_reads_now_is_no_longer_in_the_gauges():
    stays, goes, comes = ("status-events", 0), ("status-events", 1), ("status-events", 2)
    gauges = PartitionGauges()
    gauges.observe(source(stays, goes))
    assert shown((stays, goes)) == {stays: [7, 1, 90], goes: [7, 1, 90]}
    gauges.observe(source(stays, comes))
    # Its lag would be added to that of the engine which has it, and its hold would never end.
    assert shown((stays, goes, comes)) == {stays: [7, 1, 90], goes: [None] * 3, comes: [7, 1, 90]}
    gauges.observe(source())
    assert shown((stays, comes)) == {stays: [None] * 3, comes: [None] * 3}


def counted() -> float | None:
    return REGISTRY.get_sample_value("ousel_users_evicted_total")


def test_a_counter_leaves_out_what_a_snapshot_brought_and_keeps_what_a_partition_takes_away():
    rising, began = RisingCount(metrics.USERS_EVICTED), counted()
    restored, new = object(), object()
    rising.observe([(restored, 500), (new, 0)])
    assert counted() == began
    rising.observe([(restored, 503), (new, 4)])
    assert counted() == began + 7
    rising.observe([(new, 4)])  # the other went to another engine
    rising.observe([(new, 5)])
    assert counted() == began + 8
    rising.observe([(restored, 503), (new, 5)])  # and has come back
    assert counted() == began + 8


def test_a_count_that_begins_in_this_process_is_taken_whole():
    rising, began = RisingCount(metrics.INDEX_PROBES, from_zero=True), metrics.INDEX_PROBES._value.get()
    first, second = object(), object()
    rising.observe([(first, 3)])
    rising.observe([(second, 2)])  # of the next model
    assert metrics.INDEX_PROBES._value.get() == began + 5


def test_the_state_is_counted_from_where_its_snapshot_left_it():
    config = Config().state
    counts = dict.fromkeys(("evicted_users", "forgotten", "evicted_items", "evicted_targets", "duplicates"), 100)
    one = SimpleNamespace(**counts, redelivered=9)
    state = SimpleNamespace(
        slices={0: SimpleNamespace(slice=one)}, items_redelivered=1, records=SimpleNamespace(evicted=5)
    )
    names = [
        "ousel_users_evicted_total", "ousel_users_forgotten_total", "ousel_items_evicted_total",
        "ousel_targets_evicted_total", "ousel_events_duplicate_total", "ousel_records_redelivered_total",
        "ousel_catalog_evicted_total",
    ]  # fmt: skip
    seen = StateMetrics(config)
    seen.count(state)
    before = [REGISTRY.get_sample_value(name) for name in names]
    for name in counts:
        setattr(one, name, 102)
    one.redelivered, state.items_redelivered, state.records.evicted = 10, 2, 7
    seen.count(state)
    assert [REGISTRY.get_sample_value(name) - was for name, was in zip(names, before, strict=True)] == [2.0] * 7
