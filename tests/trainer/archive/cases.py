"""A trainer that follows a log of lines, with an archive, and what its archive holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as parquet

from engine.config import StateConfig
from engine.events.source import Assignment, LogRange
from tests.engine import logs
from tests.engine.logs import TOPIC, Line
from tests.trainer.planted import KINDS
from trainer.archive import archive
from trainer.archive.archive import Archive
from trainer.archive.rows import to_events
from trainer.replay import Replay

DAY_MS = 86_400_000
TODAY = 20_000  # days since 1970
Columns = tuple[object, ...]


def opened(path: Path, days: int = 90, topic_id: str | None = None, today: int = TODAY) -> Archive:
    return Archive(path, days, KINDS, TOPIC, topic_id, clock=lambda: today * 86_400.0)


class Trainer:
    """Reads parts of a log, from its first retained offsets on; `lines` are those of the whole log.

    Args:
        begins: the first offset that the log still has, by partition.
    """

    def __init__(self, kept: Archive, lines: Sequence[Line], begins: Mapping[int, int], partitions: int = 1) -> None:
        self.archive = kept
        self.replay = Replay(StateConfig(), KINDS, 1000, partitions=partitions)
        self._parts = [[line for line in lines if line.partition == at] for at in range(partitions)]
        self._at = [begins.get(partition, 0) for partition in range(partitions)]
        ranges = {(TOPIC, at): LogRange(begins.get(at, 0), len(part)) for at, part in enumerate(self._parts)}
        for batch in kept.replay(Assignment(ranges, {TOPIC: partitions})):
            self.replay.fold(batch)

    def read(self, counts: Sequence[int] | None = None) -> None:
        """Folds and archives one batch: so many records of each partition, or all."""
        batch: list[Line] = []
        for partition, part in enumerate(self._parts):
            end = self._at[partition] + counts[partition] if counts else len(part)
            batch += part[self._at[partition] : end]
            self._at[partition] = min(end, len(part))
        if batch:
            decoded = logs.batch(batch)
            self.archive.add(decoded, self.replay.fold(decoded))


def stop(kept: Archive) -> None:
    kept.flush()
    kept.close()


def counted(path: Path) -> list[str]:
    """Files that count, by name."""
    return sorted(file["name"] for file in json.loads((path / "archive.json").read_text())["files"])


def present(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.glob("*/*"))


def archived(path: Path) -> list[Line]:
    """All rows as lines, by partition and in the order in which they were read."""
    tables = [parquet.read_table(path / name, partitioning=None) for name in counted(path)]
    if not tables:
        return []
    events = to_events(pa.concat_tables(tables).sort_by([("partition", "ascending"), ("ordinal", "ascending")]), KINDS)
    columns = (
        events.user_id, events.session_id, events.item_id, events.kind.tolist(), events.time_ms.tolist(),
        events.partition.tolist(), events.offset.tolist(), events.event_id, events.value.tolist(),
        events.forget.tolist(), events.target_id, events.ends.tolist(),
    )  # fmt: skip
    return [Line(*row) for row in zip(*columns, strict=True)]


def learned(replay: Replay) -> list[Columns]:
    """All that training reads of the log, by ids: rows differ with the order in which ids were first seen."""
    data = replay.data()
    named = [*data.item_ids, None]
    first: dict[int, int] = {}
    log = data.log
    columns = (log.user, log.item, log.time_ms, log.kind, log.value, log.session, log.previous)
    return [
        (first.setdefault(user, at), named[item], time_ms, kind, value, session, named[previous], data.deleted[item])
        for at, (user, item, time_ms, kind, value, session, previous) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        )
    ]


@contextmanager
def limits(**numbers: float) -> Iterator[None]:
    """The archive with other limits, as limits(flush_rows=3)."""
    with mock.patch.multiple(archive, **{f"_{name.upper()}": number for name, number in numbers.items()}):
        yield
