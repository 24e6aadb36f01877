"""Sources for a child process to run. Light to import; what a test wants of one that runs goes through `commit`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from engine.events.batch import Record
from engine.events.source import LogHealth, MemorySource, Partition, SourceError

TOPIC = "t"


def batch(*offsets: int, partition: int = 0) -> list[Record]:
    return [Record(TOPIC, partition, n, n + 5, b"k" if n % 2 else None, b"v%d" % n or None) for n in offsets]


class CuedSource(MemorySource):
    """Does as it is told by `commit({(what, n): m})`; reports in the lag how often it was polled and what it did."""

    def __init__(self, batches: Sequence[Sequence[Record]] = ()) -> None:
        super().__init__(batches)
        self.polled = 0
        self.age_s = 0.0
        self.holds: dict[Partition, str] = {}

    def health(self) -> LogHealth:
        return LogHealth(self.age_s, problems=1)

    def poll(self, timeout_s: float) -> Sequence[Record]:
        records = super().poll(timeout_s)
        self.polled += len(records) > 0
        return records

    def commit(self, positions: Mapping[Partition, int]) -> None:
        super().commit(positions)
        for (what, number), value in positions.items():
            if what == "append":
                self.append(batch(value, partition=number))
            elif what == "reassign":
                self.reassign([(TOPIC, number)] if value else None)
            elif what == "fail":
                self.fail(SourceError("check the weather"))
            elif what == "hold":
                self.holds[TOPIC, number] = "as the test wants"
            elif what == "raise":
                raise ValueError("not foreseen")
            elif what == "age":
                self.age_s = float(value)
            elif what == "exit":
                os._exit(value)

    def held(self) -> Mapping[Partition, str]:
        return self.holds

    def lag_by_partition(self) -> Mapping[Partition, int]:
        return {("polled", 0): self.polled, **super().lag_by_partition(), **self.committed}


def refusing() -> MemorySource:
    raise SourceError("nobody there")


def broken() -> MemorySource:
    raise ValueError("not foreseen")


def light() -> MemorySource:
    """Fails where something heavy was imported into the process."""
    heavy = sorted({"torch", "grpc", "pytest"} & sys.modules.keys())
    if heavy:
        raise SourceError(f"imported: {heavy}")
    return MemorySource()
