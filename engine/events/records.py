"""One polled batch in few buffers: little to hold, cheap to move to another process, ready to be decoded as a whole.

Shapes: N records, in the order in which they were polled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain, groupby
from operator import attrgetter
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from engine.events.batch import Flaw, Record


@dataclass(frozen=True)
class Run:
    """Neighbors in a batch that come from one partition."""

    topic: str
    partition: int
    count: int


@dataclass(frozen=True)
class Blobs:
    """N byte strings, any of which may be missing.

    Attributes:
        data: all of them, joined.
        size: [N] int32 bytes of each, -1 where there is none.
    """

    data: bytes
    size: NDArray[np.int32]

    @cached_property
    def end(self) -> NDArray[np.int64]:
        """[N] where each ends in `data`."""
        return np.maximum(self.size, 0).cumsum(dtype=np.int64)

    def take(self, position: NDArray[np.int64]) -> list[bytes | None]:
        end, size, data = self.end[position].tolist(), self.size[position].tolist(), self.data
        return [data[e - n : e] if n >= 0 else None for e, n in zip(end, size, strict=True)]

    def part(self, first: int, last: int) -> Blobs:
        """The byte strings from position `first` to before `last`."""
        begin = int(self.end[first - 1]) if first else 0
        end = int(self.end[last - 1]) if last > first else begin
        return Blobs(self.data[begin:end], self.size[first:last])

    @classmethod
    def packed(cls, values: Sequence[bytes | None]) -> Blobs:
        try:
            size = np.fromiter(map(len, values), np.int32, len(values))  # type: ignore[arg-type]
            return cls(b"".join(values), size)  # type: ignore[arg-type]
        except TypeError:  # there is a None among them
            size = np.array([-1 if value is None else len(value) for value in values], np.int32)
            return cls(b"".join(value or b"" for value in values), size)

    @classmethod
    def joined(cls, parts: Sequence[Blobs]) -> Blobs:
        return cls(b"".join(part.data for part in parts), np.concatenate([part.size for part in parts]))


@dataclass(frozen=True, eq=False)
class Records(Sequence[Record]):
    """A polled batch. `records[i]` makes the i-th `Record` anew each time.

    Attributes:
        runs: topic and partition of the records, as (topic, partition, how many in a row).
        offset: [N] int64.
        timestamp_ms: [N] int64 record time, -1 where the log has none.
        key: N byte strings.
        value: N byte strings.
        flaws: the flaw of each position whose record stands for some that can't be read.
        traced: the traceparent of each record that is traced, by topic, partition and offset. A part of a batch has
            those of the whole.
    """

    runs: tuple[Run, ...]
    offset: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    key: Blobs
    value: Blobs
    flaws: Mapping[int, Flaw] = field(default_factory=dict)
    traced: Mapping[tuple[str, int, int], str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """The bytes of its keys and values, which are nearly all of it."""
        return len(self.key.data) + len(self.value.data)

    @classmethod
    def packed(cls, records: Iterable[Record]) -> Records:
        """Packs records as they are; records that are packed already are returned."""
        if isinstance(records, Records):
            return records
        runs = [list(run) for _, run in groupby(records, key=attrgetter("topic", "partition"))]
        return cls._of(runs, "timestamp_ms")

    @classmethod
    def fetched(
        cls, partitions: Iterable[Sequence[Any]], traced: Mapping[tuple[str, int, int], str] | None = None
    ) -> Records:
        """Packs `FetchedRecord`s: the lists that `LogConsumer.poll` returns by partition."""
        packed = cls._of([run for run in partitions if run], "timestamp")
        return replace(packed, traced=traced) if traced else packed

    @classmethod
    def _of(cls, runs: Sequence[Sequence[Any]], timestamp: str) -> Records:
        # attrgetter under map stays in C: a third of what a comprehension with four attributes costs.
        count = sum(map(len, runs))
        flaws = map(attrgetter("flaw"), chain.from_iterable(runs))
        times = [-1 if time is None else time for time in map(attrgetter(timestamp), chain.from_iterable(runs))]
        return cls(
            runs=tuple(Run(run[0].topic, run[0].partition, len(run)) for run in runs),
            offset=np.fromiter(map(attrgetter("offset"), chain.from_iterable(runs)), np.int64, count),
            timestamp_ms=np.array(times, np.int64),
            key=Blobs.packed(list(map(attrgetter("key"), chain.from_iterable(runs)))),
            value=Blobs.packed(list(map(attrgetter("value"), chain.from_iterable(runs)))),
            flaws={position: flaw for position, flaw in enumerate(flaws) if flaw is not None},
        )

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """Several batches as one."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.packed(())
        return cls(
            runs=tuple(chain.from_iterable(part.runs for part in parts)),
            offset=np.concatenate([part.offset for part in parts]),
            timestamp_ms=np.concatenate([part.timestamp_ms for part in parts]),
            key=Blobs.joined([part.key for part in parts]),
            value=Blobs.joined([part.value for part in parts]),
            flaws={
                first + position: flaw
                for first, part in zip(accumulate(map(len, parts), initial=0), parts, strict=False)
                for position, flaw in part.flaws.items()
            },
            traced={place: name for part in parts for place, name in part.traced.items()},
        )

    @cached_property
    def partition(self) -> NDArray[np.int32]:
        """[N] partition of each record."""
        return np.repeat(np.array([run.partition for run in self.runs], np.int32), self._counts)

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        return np.array([run.count for run in self.runs], np.int64)

    def of_topic(self, topic: str) -> NDArray[np.bool_]:
        """[N] whether each record is of this topic."""
        return np.repeat(np.array([run.topic == topic for run in self.runs], np.bool_), self._counts)

    def positions(self) -> dict[tuple[str, int], int]:
        """The offset behind the last record of each (topic, partition)."""
        last = (self._counts.cumsum() - 1).tolist()
        positions = {}
        for run, at in zip(self.runs, last, strict=True):
            offset = self.flaws[at].last_offset if at in self.flaws else int(self.offset[at])
            positions[run.topic, run.partition] = offset + 1
        return positions

    def take(self, position: NDArray[np.int64]) -> list[Record]:
        """The records at these positions, in the order asked for."""
        runs = np.searchsorted(self._counts.cumsum(), position, side="right").tolist()
        columns = self.offset[position].tolist(), self.timestamp_ms[position].tolist()
        rows = zip(runs, *columns, self.key.take(position), self.value.take(position), strict=True)
        records = [Record(self.runs[run].topic, self.runs[run].partition, *rest) for run, *rest in rows]
        if self.flaws:
            flaws = map(self.flaws.get, position.tolist())
            records = [record._replace(flaw=flaw) for record, flaw in zip(records, flaws, strict=True)]
        return records

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            if positions.step == 1:
                return self._part(positions.start, max(positions.start, positions.stop))
            return Records.packed(self.take(np.array(positions, np.int64)))
        return self.take(np.array([positions], np.int64))[0]

    def _part(self, first: int, last: int) -> Records:
        """By columns: a record that is made and packed again takes a microsecond."""
        ends = self._counts.cumsum()
        counts = np.minimum(ends, last) - np.maximum(ends - self._counts, first)
        return Records(
            runs=tuple(
                Run(run.topic, run.partition, count)
                for run, count in zip(self.runs, counts.tolist(), strict=True)
                if count > 0
            ),
            offset=self.offset[first:last],
            timestamp_ms=self.timestamp_ms[first:last],
            key=self.key.part(first, last),
            value=self.value.part(first, last),
            flaws={at - first: flaw for at, flaw in self.flaws.items() if first <= at < last},
            traced=self.traced,
        )

    def __len__(self) -> int:
        return len(self.offset)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.take(np.arange(len(self))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # The fields alone, not what was derived from them and kept.
        return Records, (self.runs, self.offset, self.timestamp_ms, self.key, self.value, self.flaws, self.traced)


def traced_of(records: Sequence[Record]) -> Mapping[tuple[str, int, int], str]:
    """The traceparents of a batch; none where it is not packed."""
    return records.traced if isinstance(records, Records) else {}
