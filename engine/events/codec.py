"""Payloads to columns: protobuf or JSON in, validated events and catalog items out, and a reason for all else.

Shapes: E events in a batch, in the order of their records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from ousel.v1 import event_pb2

from engine.config import EventsConfig, KafkaConfig
from engine.events.batch import CatalogItem, Decoded, EventBatch, Record, Rejection
from engine.events.item_codec import ItemDecoder
from engine.events.payload import PayloadError, PayloadReader
from engine.events.placeholders import named_event_id
from engine.events.problem import Problem
from engine.events.records import Records
from engine.events.rules import event_problem, relation_problem, shown
from engine.events.times import TimeRule, ms_of_timestamp
from engine.events.unread import UnreadFields
from engine.events.wire import EventParser

# event_id, user_id, session_id, item_id, target_id, kind, time_ms, value, partition, offset, timestamp_ms, forget, ends
Row = tuple[str, str, str, str, str, int, int, float, int, int, int, bool, bool]
# Below this many records, the library is through before numpy has warmed up.
_FEW = 96


class _Each(NamedTuple):
    """The results of records that were decoded one by one."""

    rows: list[Row]
    row_of: list[int]  # position of each row's record
    items: list[CatalogItem]
    rejected: list[Rejection]


class Decoder:
    """Decodes polled records.

    Args:
        features_dim: length of `Item.features` where it is not empty.
    """

    def __init__(self, kafka: KafkaConfig, events: EventsConfig, features_dim: int) -> None:
        self._events_topic = kafka.events_topic
        self._items_topic = kafka.items_topic
        self._config = events
        self._kinds = {kind: position for position, kind in enumerate(events.kinds)}
        self._relations = {kind: position for position, kind in enumerate(events.relations)}
        # Nothing reads attributes of events; those of items are kept in the catalog.
        self._reader = PayloadReader(event_pb2.Event, TimeRule.of(events), events.envelopes, unread=("attributes",))
        self._item_decoder = ItemDecoder(events, features_dim)
        self._unread = UnreadFields()
        self._parser = EventParser(kafka.events_topic, events)

    def decode(self, records: Sequence[Record]) -> Decoded:
        """Turns every record into one event, one item or one rejection; it never raises for what a record holds."""
        decoded = self._decode(records)
        self._unread.report()
        return replace(decoded, events=_by_its_record(decoded.events))

    def _decode(self, records: Sequence[Record]) -> Decoded:
        if len(records) < _FEW:
            records = list(records)
            each = self._decode_each(records)
            positions = {(record.topic, record.partition): record.next_offset for record in records}
            return Decoded(_to_batch(each.rows), each.items, each.rejected, positions)
        packed = Records.packed(records)
        usual, accepted, rest = self._parser.parse(packed)
        each = self._decode_each(packed.take(rest))
        events = usual
        if each.rows:
            order = np.argsort(np.concatenate([accepted, rest[each.row_of]]))
            events = EventBatch.joined([usual, _to_batch(each.rows)]).select(order)
        return Decoded(events, each.items, each.rejected, packed.positions())

    def _decode_each(self, records: Sequence[Record]) -> _Each:
        """Decodes record by record, with the protobuf library."""
        config, kinds, relations = self._config, self._kinds, self._relations
        items: list[CatalogItem] = []
        rejected: list[Rejection] = []
        # One tuple per event and one transposition at the end: cheaper than ten appends per event.
        rows: list[Row] = []
        row_of: list[int] = []
        for position, record in enumerate(records):
            topic, partition, offset, timestamp_ms, _, payload, flaw = record
            if flaw is not None:
                rejected.append(Rejection(record, flaw.reason))
                continue
            if topic != self._events_topic:
                self._decode_other(record, items, rejected)
                continue
            try:
                event, context = self._reader.read(payload)
                kind, time_ms, problem = _judged(event, timestamp_ms, config)
                if problem:
                    raise PayloadError(problem, context)
            except PayloadError as error:
                rejected.append(self._rejection(record, error))
                continue
            if context.unknown:
                self._unread.note(record, context.unknown)
            target_id, ends = event.target_user_id or event.entity_id, event.ends
            number = relations[kind] if target_id else kinds[kind]
            event_id = named_event_id(event.event_id, config)
            row = (event_id, event.user_id, event.session_id, event.item_id, target_id, number, time_ms)
            rows.append((*row, event.value or 1.0, partition, offset, timestamp_ms, event.forget, ends))
            row_of.append(position)
        return _Each(rows, row_of, items, rejected)

    def _decode_other(self, record: Record, items: list[CatalogItem], rejected: list[Rejection]) -> None:
        if record.topic != self._items_topic:
            topics = [self._events_topic, self._items_topic]
            rejected.append(Rejection(record, f"topic must be one of {topics}, got {shown(record.topic)}"))
            return
        try:
            item, unknown = self._item_decoder.decode(record)
        except PayloadError as error:
            rejected.append(self._rejection(record, error))
            return
        items.append(item)
        if unknown:
            self._unread.note(record, unknown)

    def _rejection(self, record: Record, error: PayloadError) -> Rejection:
        if error.unknown:
            self._unread.note(record, error.unknown)
        return Rejection(record, str(error))


def validate_event(
    event: event_pb2.Event, now_ms: int, config: EventsConfig, *, may_forget: bool = False
) -> Problem | None:
    """Checks an event before it is written to the log, by the rules that its record will meet.

    Args:
        now_ms: the time its record will have.
        may_forget: whether its writer may have users forgotten; only PrivacyService's may.

    Returns:
        None, or the reason: field, what it must be, and what it was.
    """
    if event.forget and not may_forget:
        return Problem("forget", "must be false: call PrivacyService.ForgetUser")
    return _judged(event, now_ms, config)[2]


def _judged(event: event_pb2.Event, now_ms: int, config: EventsConfig) -> tuple[str, int, Problem | None]:
    """Kind and time in ms of an event, by default where it has none, and which rule it breaks."""
    time_ms = ms_of_timestamp(event.time) if event.HasField("time") else now_ms
    target_user_id, entity_id = event.target_user_id, event.entity_id
    ids = event.event_id, event.user_id, event.session_id, event.item_id
    if not (target_user_id or entity_id or event.ends):
        kind = event.kind or config.default_kind
        return kind, time_ms, event_problem(*ids, kind, time_ms, event.value, event.forget, now_ms, config)
    kind = event.kind or (config.default_user_relation if target_user_id else config.default_item_relation)
    targets = target_user_id, entity_id
    return kind, time_ms, relation_problem(*ids + targets, kind, time_ms, event.value, event.forget, now_ms, config)


def _by_its_record(events: EventBatch) -> EventBatch:
    """The events, with no time later than that of the record: nothing that has happened lies in the future.

    A producer's clock may be ahead. Such a time would count more than its weight in decayed popularity, and would move
    the clock for all. A record without a time (-1) says nothing of this.
    """
    ahead = (events.time_ms > events.timestamp_ms) & (events.timestamp_ms >= 0)
    return replace(events, time_ms=np.where(ahead, events.timestamp_ms, events.time_ms)) if ahead.any() else events


def _to_batch(rows: list[Row]) -> EventBatch:
    if not rows:
        return EventBatch.empty()
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True))
    return EventBatch(
        event_id=columns[0],
        user_id=columns[1],
        session_id=columns[2],
        item_id=columns[3],
        target_id=columns[4],
        kind=np.array(columns[5], np.int8),
        time_ms=np.array(columns[6], np.int64),
        value=np.array(columns[7], np.float32),
        partition=np.array(columns[8], np.int32),
        offset=np.array(columns[9], np.int64),
        timestamp_ms=np.array(columns[10], np.int64),
        forget=np.array(columns[11], np.bool_),
        ends=np.array(columns[12], np.bool_),
    )
