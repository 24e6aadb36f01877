"""Envelopes that other tools put around a record: CloudEvents, Debezium and Kafka Connect, schema-registry framing.

Each is recognised whether it is to be read or not, so that the reason of a refused record can name it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Container, Mapping
from typing import Any

import orjson

from engine.config.events import CLOUDEVENTS, DEBEZIUM
from engine.events.rules import shown

Fields = Mapping[str, Any]

_MAGIC = 0
_HEADER_BYTES = 5  # a zero byte, then the schema's id in four
_MAX_INDEXES = 100  # No schema nests messages so deep: bytes that say more are no message indexes.


class EnvelopeError(ValueError):
    """An envelope without anything to read in it; the message is the reason."""


def envelope_of(fields: Fields) -> str:
    """The envelope that a JSON object is; empty where it is none, as one that names an item itself."""
    if "item_id" in fields or "itemId" in fields:
        return ""
    if "specversion" in fields and ("data" in fields or "data_base64" in fields):
        return CLOUDEVENTS
    payload = fields.get("payload")
    if isinstance(payload, dict) and ("schema" in fields or _is_change(payload)):
        return DEBEZIUM
    return DEBEZIUM if _is_change(fields) else ""


def is_framed(data: bytes) -> bool:
    """Whether these bytes begin as a schema registry's serializers begin them; neither JSON nor protobuf does."""
    return len(data) > _HEADER_BYTES and data[0] == _MAGIC


def schema_id(data: bytes) -> int:
    """The schema's id of framed bytes."""
    return int.from_bytes(data[1:_HEADER_BYTES], "big")


def unframed(data: bytes) -> bytes:
    """The JSON or the protobuf message of framed bytes, without the message indexes that stand before the latter.

    Raises:
        EnvelopeError: it is neither.
    """
    content = data[_HEADER_BYTES:]
    if content[:1] in (b"{", b'"', b"["):
        return content
    count, at = _zigzag(content, 0)
    if not 0 <= count <= _MAX_INDEXES:
        raise EnvelopeError("neither JSON nor protobuf is in it; Avro is not read")
    for _ in range(count):
        _, at = _zigzag(content, at)
    return content[at:]


def data_of_cloud_event(fields: Fields, wanted: Container[str]) -> Fields | bytes:
    """The data of a CloudEvent in JSON: an object, or bytes where it is in base64.

    Its id and time are those of the event where the data names none of its own.

    Args:
        wanted: names of the fields that the message in it has; an item has neither an id of an event nor a time.

    Raises:
        EnvelopeError: the data is neither.
    """
    if "data" not in fields:
        try:
            return base64.b64decode(fields["data_base64"], validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise EnvelopeError(f"data_base64 must be base64, got {shown(fields['data_base64'])}") from None
    data = _object("data", fields["data"])
    given = {name: fields.get(of) for name, of in (("event_id", "id"), ("time", "time")) if name in wanted}
    own = {name for name in ("event_id", "time") if data.get(name) is not None}
    if data.get("eventId") is not None:
        own.add("event_id")
    return {**data, **{name: value for name, value in given.items() if value is not None and name not in own}}


def row_of_change(fields: Fields) -> tuple[Fields, bool]:
    """The row of a Debezium change or of a Kafka Connect record, and whether it was deleted.

    A deleted row is as it was before, as far as the change says; it may be empty.

    Raises:
        EnvelopeError: there is no row.
    """
    payload = fields.get("payload")
    change = payload if isinstance(payload, dict) else fields
    if not _is_change(change):  # the row itself, as Connect's converter and Debezium's flattening write it
        return _without_mark(change)
    op = change.get("op")
    if op == "d":
        before = change.get("before")
        return (_object("before", before) if before is not None else {}), True
    if op is not None and op not in ("c", "r", "u"):
        raise EnvelopeError(f"op must be c, r, u or d, got {shown(op)}")
    return _without_mark(_object("after", change.get("after")))


def _is_change(fields: Fields) -> bool:
    return "op" in fields and ("after" in fields or "before" in fields)


def _without_mark(row: Fields) -> tuple[Fields, bool]:
    """A row without the field by which Debezium's flattening marks a deleted one, and whether it is."""
    deleted = row.get("__deleted")
    if deleted is None:
        return row, False
    return {name: value for name, value in row.items() if name != "__deleted"}, deleted in (True, "true")


def _object(name: str, value: object) -> Fields:
    """An object, or one that stands in text, as some connectors write rows."""
    found = value
    if isinstance(value, str):
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError:
            found = None
    if not isinstance(found, dict):
        raise EnvelopeError(f"{name} must be an object, got {'null' if value is None else shown(value)}")
    return found


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    """A signed number of varying length, and where it ends.

    Raises:
        EnvelopeError: it does not end.
    """
    value = shift = 0
    while at < len(data) and shift < 35:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
    raise EnvelopeError("neither JSON nor protobuf is in it; Avro is not read")
