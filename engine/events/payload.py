"""A record's bytes to one message: protobuf, or JSON as protobuf's printers and people write it, in an envelope or not.

A field that is unknown refuses no record: its name is handed on, to be counted, and to be named in the reason where a
rule refuses the record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import orjson
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from ousel.v1 import catalog_pb2, event_pb2

from engine.config.events import CLOUDEVENTS, DEBEZIUM, SCHEMA_REGISTRY
from engine.events.envelope import (
    EnvelopeError,
    data_of_cloud_event,
    envelope_of,
    is_framed,
    row_of_change,
    schema_id,
    unframed,
)
from engine.events.json_fields import FieldError, JsonFields
from engine.events.rules import shown
from engine.events.times import TimeRule

M = TypeVar("M", event_pb2.Event, catalog_pb2.Item)

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_OTHER_STARTS = frozenset(b"\x00\xef{[" + _SPACE)  # A payload that begins with any other byte is protobuf.
_MAX_NAMES = 8  # of unknown fields that a reason or a log line shows


class Context(NamedTuple):
    """Remarks on a payload, beside the message in it.

    Attributes:
        unknown: names of fields that nothing reads; numbers where a protobuf message has them.
        envelope: the one that was found and is not read.
        framed: the schema's id, where a schema registry's serializer wrote the payload and it was read.
    """

    unknown: Sequence[str] = ()
    envelope: str = ""
    framed: int | None = None

    def reason(self, problem: str) -> str:
        """The reason of a refused record, with what may have gone wrong."""
        if self.unknown:
            problem += f"; unknown fields {names_shown(self.unknown)}"
        if self.envelope:
            problem += f'; this is a {self.envelope} envelope, which events.envelope = "{self.envelope}" reads'
        if self.framed is not None:
            problem += f"; the record is framed for schema {self.framed} of a registry, whose Avro is not read"
        return problem


_NOTHING_ELSE = Context()


class PayloadError(ValueError):
    """A record that can't be read, or that breaks a rule; the message is the whole reason.

    Attributes:
        unknown: names of its fields that nothing reads.
    """

    def __init__(self, problem: str, context: Context | None = None) -> None:
        super().__init__(context.reason(problem) if context else problem)
        self.unknown = context.unknown if context else ()


class Payload(NamedTuple, Generic[M]):
    """A message, and what else is to be said about it."""

    message: M
    context: Context


class PayloadReader(Generic[M]):
    """Reads payloads of one kind of message.

    Args:
        envelopes: those that are read; records without one always are.
        unread: fields of the message that nothing in Ousel reads, so that they count as unknown.
    """

    def __init__(
        self, kind: type[M], times: TimeRule, envelopes: Collection[str] = (), unread: Collection[str] = ()
    ) -> None:
        self._kind: type[M] = kind
        self._times = times
        self._envelopes = frozenset(envelopes)
        self._fields = JsonFields(kind, unread)
        self._unread = tuple(unread)
        self._wanted = f"payload must be {kind.DESCRIPTOR.full_name} as protobuf or JSON"

    def read(self, payload: bytes | None, id_of_key: Callable[[], str] = str) -> Payload[M]:
        """The message in a payload.

        Args:
            id_of_key: the item of the record's key, for an envelope that says that a row was deleted, and not which.

        Raises:
            PayloadError: there is none.
        """
        if not payload:
            raise PayloadError(f"{self._wanted}, got nothing")
        if payload[0] not in _OTHER_STARTS:
            return self._protobuf(payload, None)
        framed = None
        if is_framed(payload):
            if SCHEMA_REGISTRY not in self._envelopes:
                framing = f"got the framing of schema {schema_id(payload)} of a registry"
                raise PayloadError(f"{self._wanted}, {framing}", Context(envelope=SCHEMA_REGISTRY))
            framed = schema_id(payload)
            try:
                payload = unframed(payload)
            except EnvelopeError as error:
                raise PayloadError(f"{self._wanted}: {error}", Context(framed=framed)) from None
        return self._unwrapped(payload, id_of_key, framed)

    def _unwrapped(self, payload: bytes, id_of_key: Callable[[], str], framed: int | None) -> Payload[M]:
        if not payload:
            raise PayloadError(f"{self._wanted}, got an envelope with nothing in it", Context(framed=framed))
        fields = self._object(payload)
        if fields is None:
            return self._protobuf(payload, framed)
        envelope = envelope_of(fields)
        if not envelope or envelope not in self._envelopes:
            self._check_repeats(payload, fields)
            return self._json(fields, envelope, framed)
        try:
            if envelope == CLOUDEVENTS:
                data = data_of_cloud_event(fields, self._fields)
                if isinstance(data, bytes):
                    return self._unwrapped(data, id_of_key, framed)
                return self._json(data, framed=framed)
            row, deleted = row_of_change(fields)
        except EnvelopeError as error:
            raise PayloadError(f"{error} in the {envelope} envelope", Context(framed=framed)) from None
        if not deleted:
            return self._json(row, framed=framed)
        return self._deleted(row, id_of_key, framed)

    def _deleted(self, row: Mapping[str, Any], id_of_key: Callable[[], str], framed: int | None) -> Payload[M]:
        if "deleted" not in self._fields:
            raise PayloadError(f"op must not be d in the {DEBEZIUM} envelope: an event that has happened stays")
        item_id = next((row[name] for name in ("item_id", "itemId") if row.get(name) is not None), None)
        return self._json({"item_id": id_of_key() if item_id is None else item_id, "deleted": True}, framed=framed)

    def _object(self, payload: bytes) -> dict[str, Any] | None:
        """The JSON object that a payload is; None where it must be protobuf."""
        first = payload[0]
        if first == 0xEF and payload.startswith(_BOM):
            payload = payload[len(_BOM) :]
            first = payload[0] if payload else 0x20
        # 10 and 32 are white space to JSON and field tags to protobuf, so a bracket behind them proves nothing yet.
        sure = first in b"{["
        if not sure and not (first in _SPACE and payload.lstrip()[:1] in (b"{", b"[")):
            return None
        try:
            found = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            if sure:
                raise PayloadError(f"{self._wanted}: {error}") from None
            return None
        if not isinstance(found, dict):
            raise PayloadError(f"{self._wanted}: each record must hold one object, got a list of {len(found)}")
        return found

    def _protobuf(self, payload: bytes, framed: int | None) -> Payload[M]:
        try:
            message = self._kind.FromString(payload)
        except DecodeError as error:
            twice = "; it is text that holds JSON, which was encoded twice" if _is_json_text(payload) else ""
            reason = f"{self._wanted}: {error}, got {shown(payload)}{twice}"
            raise PayloadError(reason, Context(framed=framed)) from None
        # Of a message in the usual form, the known fields are as long as the payload.
        message.DiscardUnknownFields()
        usual = message.ByteSize() == len(payload)
        if usual and not any(getattr(message, name) for name in self._unread):
            return Payload(message, _NOTHING_ELSE if framed is None else Context(framed=framed))
        found: Any = () if usual else UnknownFieldSet(self._kind.FromString(payload))
        names: list[str] = [name for name in self._unread if getattr(message, name)]
        names += dict.fromkeys(str(field.field_number) for field in found)
        return Payload(message, Context(names, framed=framed))

    def _json(self, fields: Mapping[str, Any], envelope: str = "", framed: int | None = None) -> Payload[M]:
        message = self._kind()
        try:
            unknown = self._fields.fill(message, fields, self._times)
        except FieldError as error:
            raise PayloadError(str(error), Context(self._fields.unknown(fields), envelope, framed)) from None
        return Payload(message, Context(unknown, envelope, framed))

    def _check_repeats(self, payload: bytes, fields: Mapping[str, Any]) -> None:
        """Refuses an object that names a known field twice, of which the parser has kept the last value only."""
        names = payload.count(b'":') + payload.count(b'" :')
        if names <= len(fields):
            return
        if names <= len(fields) + sum(len(value) for value in fields.values() if isinstance(value, dict)):
            return
        try:
            pairs = json.loads(payload.removeprefix(_BOM), object_pairs_hook=list)
        except (ValueError, RecursionError):
            return  # Only a document that is nested very deep gets here.
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in self._fields and seen.setdefault(name, value) != value:
                raise PayloadError(
                    f"{name} must be there once, got {shown(seen[name])} and {shown(value)}",
                    Context(self._fields.unknown(fields)),
                )


def names_shown(names: Sequence[str]) -> str:
    """Some of the names, each short and printable."""
    few = [name if name.isascii() and name.isprintable() and 0 < len(name) <= 40 else shown(name) for name in names]
    return ", ".join(few[:_MAX_NAMES]) + (f" and {len(few) - _MAX_NAMES} more" if len(few) > _MAX_NAMES else "")


def _is_json_text(payload: bytes) -> bool:
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, str) and found.lstrip()[:1] in ("{", "[")
