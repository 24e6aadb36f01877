"""What callers give, checked before anything is sent, so that every wrong value is refused by the name of its field.

protobuf and gRPC refuse a wrong value with an error of their own that names no field, and take some wrong values for
others: a text in place of a list goes out letter by letter, and a number in place of a flag counts as True. Only what a
message cannot carry is judged here. Whether a value that it can carry makes sense is for the engine to say.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from ousel.errors import InvalidArgument
from ousel.types import Position

INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)
UINT32_FROM_1 = (1, 2**32 - 1)
UINT64_FROM_1 = (1, 2**64 - 1)
_LARGEST_FLOAT = (2 - 2**-23) * 2.0**127  # the wire has four bytes for it
_LONGEST_S = 1e9  # 31 years: beyond some such number gRPC fails to count nanoseconds
_SHOWN = 80  # characters of a wrong value that an error repeats


def wrong(name: str, rule: str, value: object) -> InvalidArgument:
    """The error for a field whose value breaks a rule; it shows the value, cut where it is long, and its type."""
    try:
        shown = repr(value)
    except Exception:  # A value may fail even at being shown, and is to be refused all the same.
        shown = "a value that can't be shown"
    # A lone surrogate must not make the error itself unprintable.
    shown = shown.encode("utf-8", "backslashreplace").decode()
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    return InvalidArgument(f"{name} must be {rule}, got {shown} ({type(value).__name__})")


def text(name: str, value: str) -> str:
    """A text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise wrong(name, "a string", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise wrong(name, f"text that UTF-8 can hold ({error.reason})", value) from None
    return value


def optional_text(name: str, value: str | None) -> str:
    """A text, or "" for None."""
    return "" if value is None else text(name, value)


def texts(name: str, values: Iterable[str]) -> list[str]:
    """The texts of a list, a set, a generator, or whatever else gives one after the other."""
    if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Iterable):
        raise wrong(name, "a sequence of strings", values)
    return [text(f"{name}[{at}]", value) for at, value in enumerate(values)]


def text_by_name(name: str, values: Mapping[str, str] | None) -> dict[str, str]:
    """Texts by name; none for None."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise wrong(name, "a mapping of strings to strings, or None", values)
    return {text(f"a key of {name}", key): text(f"{name}[{key!r}]", value) for key, value in values.items()}


def flag(name: str, value: bool) -> bool:
    """True or False, and nothing that merely counts as one of them: "no" would count as True."""
    if not isinstance(value, bool):
        raise wrong(name, "True or False", value)
    return value


def whole(name: str, value: int, bounds: tuple[int, int]) -> int:
    """A whole number within `bounds`; True and False are none."""
    least, most = bounds
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise wrong(name, f"a whole number from {least} to {most}", value)
    return number


def number(name: str, value: float) -> float:
    """A number that is no text, no flag and not infinite, and that the four bytes of the wire can hold."""
    found = _float(value)
    if not abs(found) <= _LARGEST_FLOAT:  # nor is a nan
        raise wrong(name, f"a number from {-_LARGEST_FLOAT:.4g} to {_LARGEST_FLOAT:.4g}", value)
    return found


def seconds(name: str, value: float) -> float:
    """A time limit. One that is over already is none of the wrong values: its call ends with `DeadlineExceeded`."""
    found = _float(value)
    if not abs(found) <= _LONGEST_S:
        raise wrong(name, f"a number of seconds, {_LONGEST_S:g} at most", value)
    return found


def moment(name: str, value: datetime | None) -> Timestamp | None:
    """A time with its zone; None for None."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise wrong(name, "a datetime with a time zone, such as datetime.now(UTC)", value)
    made = Timestamp()
    try:
        offset = value.utcoffset()
        if offset is not None:
            made.FromDatetime(value)
    except Exception as error:  # A tzinfo is the caller's own code, and a time at the ends of the calendar overflows.
        raise wrong(name, f"a time from the year 1 to 9999 in UTC ({error})", value) from None
    if offset is None:
        raise InvalidArgument(f"{name} must have a time zone, as datetime.now(UTC) has, got {value.isoformat()}")
    return made


def position(name: str, value: Position | None) -> Position | None:
    """Where a record lies; None for None."""
    if value is None:
        return None
    if not isinstance(value, Position):
        raise wrong(name, "a Position, such as `track` returns in `position`, or None", value)
    return Position(
        topic=text(f"{name}.topic", value.topic),
        partition=whole(f"{name}.partition", value.partition, INT32),
        offset=whole(f"{name}.offset", value.offset, INT64),
    )


def _float(value: Any) -> float:
    """The number that a value is; nan where it is none."""
    if isinstance(value, (bool, str, bytes, bytearray)):
        return math.nan
    try:
        return float(value)
    except Exception:  # It has no number, or one too large for a float, or its own code fails.
        return math.nan
