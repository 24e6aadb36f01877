"""Files of events and items as the log would have brought them: records first, then the engine's decoder and fold.

So a file meets the rules that the log's records meet, and the same state and sessions come of it. What differs: of a
log a record that breaks a rule is set aside, a file with one is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from ousel.v1 import catalog_pb2, event_pb2

from engine.events.batch import Record
from engine.events.codec import Decoder
from engine.events.times import TimeRule
from engine.signals import Stopped
from trainer.config import TrainerConfig
from trainer.data.file_error import FileError
from trainer.data.files import Items, Rows, read_items, read_rows
from trainer.progress import Reading
from trainer.replay import Replay

_ORDER_MS = 60_000  # An order that is no time counts as minutes from the earliest plausible time on.


def replay_files(events: Path, items: Path | None, config: TrainerConfig, stop: threading.Event) -> Replay:
    """Folds a file of events, after a file of the catalog where there is one.

    Raises:
        FileError: a file can't be read, or a row breaks a rule of the log; names it and the rule.
        Stopped: `stop` was set.
    """
    decoder = Decoder(config.kafka, config.events, config.state.features_dim)
    replay = Replay(
        config.state, config.events, config.trainer.max_log_events, events_topic=config.kafka.events_topic,
        ranking=config.ranking,
    )  # fmt: skip
    size = config.kafka.max_poll_records
    times = TimeRule.of(config.events)
    rows = read_rows(events, times, split=False).ended_together()
    if items is not None:
        catalog = read_items(items)
        for records in _catalog(catalog, config.kafka.items_topic, size):
            decoded = decoder.decode(records)
            for rejection in decoded.rejected:
                raise FileError(f"{catalog.place(rejection.record.offset)}: {rejection.reason}")
            replay.fold(decoded)
    reading, folded = Reading(f"folding {events}", "events"), 0
    for records in _events(rows, config.kafka.events_topic, size, times.earliest_ms):
        if stop.is_set():
            raise Stopped
        decoded = decoder.decode(records)
        for rejection in decoded.rejected:
            raise FileError(f"{rows.place(int(rows.row[rejection.record.offset]))}: {rejection.reason}")
        replay.fold(decoded)
        folded += len(records)
        reading.update(folded, lambda: len(rows))
    return replay


def _catalog(items: Items, topic: str, size: int) -> Iterator[Sequence[Record]]:
    records = [
        Record(topic, 0, offset, -1, item_id.encode(), _item(item_id, title, items.categories[item_id]))
        for offset, (item_id, title) in enumerate(items.title.items())
    ]
    for first in range(0, len(records), size):
        yield records[first : first + size]


def _item(item_id: str, title: str, categories: Sequence[str]) -> bytes:
    return catalog_pb2.Item(item_id=item_id, title=title, categories=categories).SerializeToString()


def _events(rows: Rows, topic: str, size: int, earliest_ms: int) -> Iterator[Sequence[Record]]:
    """One partition; a record's time is its event's."""
    time_ms = np.round(rows.time * 1000 if rows.timed else earliest_ms + rows.time * _ORDER_MS).astype(np.int64)
    for first in range(0, len(rows), size):
        part = slice(first, first + size)
        ids = (column[part].to_pylist() for column in (rows.user, rows.session, rows.item, rows.kind))
        columns = zip(*ids, time_ms[part].tolist(), rows.value[part].tolist(), strict=True)
        yield [
            Record(topic, 0, first + at, ms, None, _event(user, session, item, kind, ms, value))
            for at, (user, session, item, kind, ms, value) in enumerate(columns)
        ]


def _event(user_id: str, session_id: str, item_id: str, kind: str, time_ms: int, value: float) -> bytes:
    event = event_pb2.Event(user_id=user_id, session_id=session_id, item_id=item_id, kind=kind, value=value)
    event.time.CopyFrom(Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000))
    return event.SerializeToString()
