"""Payloads to columns: protobuf or JSON in, validated events and catalog items out, and a reason for all else.

Shapes: E events in a batch, in the order of their records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from ousel.v1 import catalog_pb2, event_pb2

from engine.config import EventsConfig, KafkaConfig
from engine.events.batch import CatalogItem, Decoded, EventBatch, Record, Rejection
from engine.events.placeholders import named_event_id
from engine.events.records import Records
from engine.events.rules import event_problem, id_problem, item_problem, relation_problem, shown
from engine.events.times import TimeError, TimeRule, ms_of_timestamp
from engine.events.wire import EventParser

# event_id, user_id, session_id, item_id, target_id, kind, time_ms, value, partition, offset, timestamp_ms, forget, ends
Row = tuple[str, str, str, str, str, int, int, float, int, int, int, bool, bool]
M = TypeVar("M", event_pb2.Event, catalog_pb2.Item)

_SCALARS: dict[int, tuple[type | tuple[type, ...], str]] = {
    FieldDescriptor.CPPTYPE_STRING: (str, "text"),
    FieldDescriptor.CPPTYPE_FLOAT: ((float, int), "a number"),
    FieldDescriptor.CPPTYPE_BOOL: (bool, "true or false"),
}


# Below this many records, the library is through before numpy has warmed up.
_FEW = 96


class _Each(NamedTuple):
    """What records became, one by one."""

    rows: list[Row]
    row_of: list[int]  # position of each row's record
    items: list[CatalogItem]
    rejected: list[Rejection]


class PayloadError(ValueError):
    """A payload that can't be read, or whose item breaks a rule; the message is the reason."""


class Decoder:
    """Decodes polled records.

    Args:
        features_dim: length of `Item.features` where it is not empty.
    """

    def __init__(self, kafka: KafkaConfig, events: EventsConfig, features_dim: int) -> None:
        self._events_topic = kafka.events_topic
        self._items_topic = kafka.items_topic
        self._config = events
        self._features_dim = features_dim
        self._kinds = {kind: position for position, kind in enumerate(events.kinds)}
        self._relations = {kind: position for position, kind in enumerate(events.relations)}
        self._times = TimeRule.of(events)
        self._parser = EventParser(kafka.events_topic, events)

    def decode(self, records: Sequence[Record]) -> Decoded:
        """Turns every record into one event, one item or one rejection; it never raises for what a record holds."""
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
                event = _parse(event_pb2.Event, payload, self._times)
            except PayloadError as error:
                rejected.append(Rejection(record, str(error)))
                continue
            kind, time_ms, problem = _judged(event, timestamp_ms, config)
            if problem:
                rejected.append(Rejection(record, problem))
                continue
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
            items.append(self._tombstone(record.key) if not record.value else self._item(record.value))
        except PayloadError as error:
            rejected.append(Rejection(record, str(error)))

    def _item(self, payload: bytes) -> CatalogItem:
        item = _parse(catalog_pb2.Item, payload, self._times)
        decoded = CatalogItem(
            item_id=item.item_id,
            title=item.title,
            categories=tuple(item.categories),
            features=tuple(item.features),
            available_from_ms=ms_of_timestamp(item.available_from) if item.HasField("available_from") else None,
            available_until_ms=ms_of_timestamp(item.available_until) if item.HasField("available_until") else None,
            deleted=item.deleted,
        )
        problem = item_problem(decoded, self._features_dim, self._config)
        if problem:
            raise PayloadError(problem)
        return decoded

    def _tombstone(self, key: bytes | None) -> CatalogItem:
        if not key:
            raise PayloadError("key must be the item_id where a record has no value, got none")
        try:
            item_id = key.decode()
        except UnicodeDecodeError:
            raise PayloadError(f"key must be an item_id in UTF-8, got {shown(key)}") from None
        problem = id_problem("key", item_id, self._config.max_id_bytes)
        if problem:
            raise PayloadError(problem)
        return CatalogItem(item_id, deleted=True)


def validate_event(
    event: event_pb2.Event, now_ms: int, config: EventsConfig, *, may_forget: bool = False
) -> str | None:
    """Checks an event before it is written to the log, by the rules that its record will meet.

    Args:
        now_ms: the time its record will have.
        may_forget: whether its writer may have users forgotten; only PrivacyService's may.

    Returns:
        None, or the reason: field, what it must be, and what it was.
    """
    if event.forget and not may_forget:
        return "forget must be false: call PrivacyService.ForgetUser"
    return _judged(event, now_ms, config)[2]


def _judged(event: event_pb2.Event, now_ms: int, config: EventsConfig) -> tuple[str, int, str | None]:
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


def _parse(kind: type[M], payload: bytes | None, times: TimeRule) -> M:
    if not payload:
        raise PayloadError(f"payload must be {kind.DESCRIPTOR.full_name} as protobuf or JSON, got nothing")
    # 10 and 32 are white space to JSON and field tags to protobuf, so a brace behind them proves nothing yet.
    first = payload[0]
    if first == 0x7B or (first in b" \t\r\n" and payload.lstrip()[:1] == b"{"):
        try:
            fields = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            if first == 0x7B:
                raise PayloadError(
                    f"payload must be {kind.DESCRIPTOR.full_name} as protobuf or JSON: {error}"
                ) from None
        else:
            return _from_json(kind, fields, times)
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        reason = f"payload must be {kind.DESCRIPTOR.full_name} as protobuf or JSON: {error}, got {shown(payload)}"
        raise PayloadError(reason) from None


def _from_json(kind: type[M], fields: Mapping[str, Any], times: TimeRule) -> M:
    """Fills a message from parsed JSON, so that the rules meet one form only. Unknown fields and nulls are left out."""
    message = kind()
    for name, field in kind.DESCRIPTOR.fields_by_name.items():
        value = fields.get(name)
        if value is None:
            continue
        if field.message_type is Timestamp.DESCRIPTOR:
            getattr(message, name).CopyFrom(_json_time(name, value, times))
        elif field.message_type is not None:  # the only other message is the map of attributes
            _expect(name, value, dict, "an object")
            for key, text in value.items():
                _expect(f"{name}[{shown(key)}]", text, str, "text")
            getattr(message, name).update(value)
        elif field.is_repeated:
            _expect(name, value, list, "a list")
            for position, element in enumerate(value):
                _expect(f"{name}[{position}]", element, *_SCALARS[field.cpp_type])
            getattr(message, name).extend(value)
        else:
            _expect(name, value, *_SCALARS[field.cpp_type])
            setattr(message, name, value)
    return message


def _expect(name: str, value: object, types: type | tuple[type, ...], words: str) -> None:
    # To Python a bool is an int; to us only where a bool is asked for.
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise PayloadError(f"{name} must be {words}, got {shown(value)}")


def _json_time(name: str, value: object, times: TimeRule) -> Timestamp:
    try:
        seconds, ms = divmod(times.ms(value), 1000)
    except TimeError as error:
        raise PayloadError(f"{name} {error}, got {shown(value)}") from None
    return Timestamp(seconds=seconds, nanos=ms * 1_000_000)
