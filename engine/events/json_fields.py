"""The fields of a message in JSON, as protobuf's printers and people write them.

Names are those of the proto files or their camelCase forms; numbers may be text, and ids and other text may be whole
numbers. A field that is unknown refuses no record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from ousel.v1 import catalog_pb2, event_pb2

from engine.events.rules import shown
from engine.events.times import TimeError, TimeRule

# JSON has no infinity and no NaN; proto3's printers write them as these texts, and the rules refuse them by name.
_number = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?|NaN|-?Infinity").fullmatch


class FieldError(ValueError):
    """A value of the wrong type; the message is the reason."""


class _Field(NamedTuple):
    """A field as one of its names in JSON finds it.

    Attributes:
        name: in the proto file.
        other: the other name in JSON; None where there is one only.
        put: writes a value into a message.
    """

    name: str
    other: str | None
    put: Callable[[Any, str, Any, TimeRule], None]


class JsonFields:
    """The names that the fields of a message have in JSON, and how their values get into it.

    Args:
        unread: fields that nothing in Ousel reads, so that they count as unknown.
    """

    def __init__(self, kind: type[event_pb2.Event] | type[catalog_pb2.Item], unread: Collection[str]) -> None:
        self._known: dict[str, _Field] = {}
        for name, field in kind.DESCRIPTOR.fields_by_name.items():
            if name in unread:
                continue
            put, camel = _put_of(field), field.camelcase_name
            self._known[name] = _Field(name, camel if camel != name else None, put)
            if camel != name:
                self._known[camel] = _Field(name, name, put)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def fill(self, message: Any, fields: Mapping[str, Any], times: TimeRule) -> list[str]:
        """Fills a message from parsed JSON, where null stands for no value; returns the names that are unknown.

        Raises:
            FieldError: a value is of the wrong type, or the two names of a field have different values.
        """
        unknown: list[str] = []
        known = self._known
        for name, value in fields.items():
            field = known.get(name)
            if field is None:
                unknown.append(name)
            elif value is not None:
                if field.other and fields.get(field.other, value) not in (None, value):
                    pair = f"{shown(value)} and {shown(fields[field.other])}"
                    raise FieldError(f"{name} and {field.other} must agree where both are given, got {pair}")
                field.put(message, field.name, value, times)
        return unknown

    def unknown(self, fields: Iterable[str]) -> list[str]:
        """The names that are unknown among these."""
        return [name for name in fields if name not in self._known]


def _put_of(field: Any) -> Callable[[Any, str, Any, TimeRule], None]:
    if field.message_type is Timestamp.DESCRIPTOR:
        return _put_time
    if field.message_type is not None:  # The only other message is the map of attributes.
        return _put_attributes
    if field.is_repeated:
        return _put_texts if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else _put_numbers
    return {
        FieldDescriptor.CPPTYPE_STRING: _put_text,
        FieldDescriptor.CPPTYPE_FLOAT: _put_number,
        FieldDescriptor.CPPTYPE_BOOL: _put_bool,
    }[field.cpp_type]


def _put_text(message: Any, name: str, value: Any, _: TimeRule) -> None:
    setattr(message, name, value if type(value) is str else _text(name, value))


def _put_number(message: Any, name: str, value: Any, _: TimeRule) -> None:
    setattr(message, name, _float(name, value))


def _put_bool(message: Any, name: str, value: Any, _: TimeRule) -> None:
    if not isinstance(value, bool):
        raise FieldError(f"{name} must be true or false, got {shown(value)}")
    setattr(message, name, value)


def _put_texts(message: Any, name: str, value: Any, _: TimeRule) -> None:
    texts = [_text(f"{name}[{at}]", element) for at, element in enumerate(_list(name, value))]
    getattr(message, name)[:] = texts


def _put_numbers(message: Any, name: str, value: Any, _: TimeRule) -> None:
    numbers = [_float(f"{name}[{at}]", element) for at, element in enumerate(_list(name, value))]
    getattr(message, name)[:] = numbers


def _put_time(message: Any, name: str, value: Any, times: TimeRule) -> None:
    try:
        seconds, ms = divmod(times.ms(value), 1000)
    except TimeError as error:
        raise FieldError(f"{name} {error}, got {shown(value)}") from None
    time = getattr(message, name)
    time.seconds, time.nanos = seconds, ms * 1_000_000


def _put_attributes(message: Any, name: str, value: Any, _: TimeRule) -> None:
    """Attributes are text; numbers, true and false become theirs in JSON, and null stands for no attribute."""
    if not isinstance(value, dict):
        raise FieldError(f"{name} must be an object, got {shown(value)}")
    attributes = getattr(message, name)
    attributes.clear()
    for key, given in value.items():
        if isinstance(given, str):
            attributes[key] = given
        elif isinstance(given, int | float):
            attributes[key] = orjson.dumps(given).decode()
        elif given is not None:
            raise FieldError(f"{name}[{shown(key)}] must be text, a number, true or false, got {shown(given)}")


def _text(name: str, value: Any) -> str:
    """Text; a whole number becomes its decimal form, since many shops write ids so."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    # A parser of JSON makes a fraction of a whole number from 2**64 on, and that would be another id.
    raise FieldError(f"{name} must be text or a whole number below 2**64, got {shown(value)}")


def _float(name: str, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _number(value):
        return float(value)
    raise FieldError(f"{name} must be a number, got {shown(value)}")


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FieldError(f"{name} must be a list, got {shown(value)}")
    return value
