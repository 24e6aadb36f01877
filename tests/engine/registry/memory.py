"""A models' topic and a folder of models in memory, which stall, fail and lose what they are told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from engine.registry.errors import DamagedModel, RegistryError
from engine.registry.ledger import LedgerRecord
from engine.registry.topic import Batch

NAME = "ousel.models"


class MemoryTopic:
    """Shared by as many readers as there are engines in a test.

    Attributes:
        away: neither reads nor writes succeed.
        before_write: records of somebody else that come in just before the next write.
    """

    def __init__(self) -> None:
        self.name = NAME
        self.away = False
        self.before_write: list[tuple[str, bytes | None]] = []
        self._records: list[LedgerRecord] = []
        self._changed = threading.Condition()

    def records(self) -> list[LedgerRecord]:
        return list(self._records)

    def read(self, stop: threading.Event) -> Iterator[Batch]:
        position = 0
        while not stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda at=position: len(self._records) > at or self.away, 0.02)
                if self.away:
                    raise RegistryError(f"registry.topic {self.name!r} can't be read: it is away")
                records = self._records[position:]
                position = len(self._records)
            yield Batch(records, position, True)

    def write(self, records: Sequence[tuple[str, bytes | None]]) -> int:
        with self._changed:
            if self.away:
                raise RegistryError(f"registry.topic {self.name!r} does not take records: it is away")
            before, self.before_write = self.before_write, []
            for key, value in [*before, *records]:
                self._records.append(LedgerRecord(len(self._records), key, value))
            self._changed.notify_all()
            return len(self._records) - 1


class MemoryPlace:
    """A folder in memory.

    Attributes:
        files: by name.
        away: nothing succeeds.
        hold: reads wait until it is set.
    """

    def __init__(self) -> None:
        self.shown = "memory"
        self.files: dict[str, bytes] = {}
        self.away = False
        self.hold = threading.Event()
        self.hold.set()

    def write(self, name: str, data: bytes | bytearray) -> None:
        self._check()
        self.files[name] = bytes(data)

    def read(self, name: str, limit: int) -> bytearray:
        self.hold.wait(10)
        self._check()
        if name not in self.files:
            raise DamagedModel(f"memory/{name}: is missing")
        return bytearray(self.files[name])

    def delete(self, name: str) -> None:
        self._check()
        self.files.pop(name, None)

    def _check(self) -> None:
        if self.away:
            raise RegistryError("registry.dir memory can't be used: it is away")
