"""What can be seen of the partitions that are read here."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

from prometheus_client import REGISTRY

from engine.events.source import EventSource, Partition
from engine.status import PartitionGauges

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
