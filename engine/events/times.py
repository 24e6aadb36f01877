"""The one rule of times, for the log, for files and for calls; docs/events.md states it for users.

Producers count seconds, milliseconds, microseconds or nanoseconds since 1970, and do not say which. The size of the
number tells them apart: seconds of the years up to 9999 end below 2.54e11, and milliseconds since 1978 begin there. So
a number is read by its size, and a time that is implausible then is refused with the reason, never folded as it is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from engine.config import EventsConfig
from engine.events.problem import Problem

# The years 1 to 9999, which google.protobuf.Timestamp, RFC 3339 and Python's datetime have.
_MIN_TIME_MS = -62_135_596_800_000
MAX_TIME_MS = 253_402_300_799_999
_END_S = MAX_TIME_MS // 1000 + 1
_MS, _US, _NS = 10**3, 10**6, 10**9  # in a second

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PAIRS = ({"seconds"}, {"seconds", "nanos"})
_number = re.compile(r"[+-]?[0-9]{1,24}(\.[0-9]*)?([eE][+]?[0-9]{1,2})?").fullmatch

EXAMPLE = "2026-03-31T08:00:00Z"
ALLOWED = f"RFC 3339 text with a zone, such as {EXAMPLE}, or a number of seconds, ms, us or ns since 1970"


class TimeError(ValueError):
    """A value that is no time; the message begins with "must be", and does not repeat the value."""


@dataclass(frozen=True)
class TimeRule:
    """How the times of producers are read, under the settings of one section `events`.

    Attributes:
        earliest_ms: times before this are implausible.
        zone: of text that names no zone; None: such text is refused.
    """

    earliest_ms: int
    zone: tzinfo | None

    @staticmethod
    def of(config: EventsConfig) -> TimeRule:
        return _rule(config.earliest_year, config.time_zone)

    def ms(self, value: object) -> int:
        """A time of a JSON document or of a cell, in ms since 1970; whether it is plausible is `problem`'s to say.

        Raises:
            TimeError: it is no time of the years 1 to 9999.
        """
        if isinstance(value, str):
            time_ms = self._ms_of_text(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            time_ms = ms_of_number(value)
        elif isinstance(value, dict) and value.keys() in _PAIRS:  # Some printers write a Timestamp so.
            time_ms = _ms_of_pair(value)
        else:
            raise TimeError(f"must be {ALLOWED}")
        if not _MIN_TIME_MS <= time_ms <= MAX_TIME_MS:
            raise TimeError("must be a time of the years 1 to 9999")
        return time_ms

    def _ms_of_text(self, text: str) -> int:
        if _number(text):
            return ms_of_number(float(text) if not text.lstrip("+-").isdigit() else int(text))
        try:
            # Databases write " UTC" where RFC 3339 has "Z".
            time = datetime.fromisoformat(f"{text[:-4]}+00:00" if text.endswith(" UTC") else text)
        except ValueError:
            raise TimeError(f"must be {ALLOWED}") from None
        if time.tzinfo is None:
            if self.zone is None:
                raise TimeError(f"must be a time with its zone, as {EXAMPLE} is, or events.time_zone must be set")
            time = time.replace(tzinfo=self.zone)
        return (time - _EPOCH) // _MILLISECOND

    def problem(self, name: str, time_ms: int) -> Problem | None:
        """Why a time is implausible: the field, what it must be, and what it was; None where it is plausible."""
        if self.earliest_ms <= time_ms <= MAX_TIME_MS:
            return None
        if time_ms > MAX_TIME_MS:
            return Problem(name, f"must lie in the years up to 9999, got {shown_ms(time_ms)}")
        earliest = f"{shown_ms(self.earliest_ms)} (events.earliest_year)"
        return Problem(name, f"must not be before {earliest}, got {shown_ms(time_ms)}{_hint(time_ms)}")


def ms_of_number(number: float) -> int:
    """A number of seconds, ms, us or ns since 1970, told apart by its size, in ms.

    Raises:
        TimeError: it is not finite.
    """
    if not math.isfinite(number):
        raise TimeError(f"must be {ALLOWED}")
    size = abs(number)
    per_s = 1 if size < _END_S else _MS if size < _END_S * _MS else _US if size < _END_S * _US else _NS
    if isinstance(number, int):
        return number * 1000 // per_s
    # By way of whole microseconds: 0.123 s have no exact float, and must not become 122 ms.
    return round(number * (_US / per_s)) // 1000


def seconds_of_numbers(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] `ms_of_number` of many, in seconds; what is not finite stays so."""
    size = np.abs(numbers)
    bounds = [size < _END_S, size < _END_S * _MS, size < _END_S * _US]
    per_s = np.select(bounds, [1.0, float(_MS), float(_US)], float(_NS))
    seconds: NDArray[np.float64] = numbers / per_s
    return seconds


def ms_of_timestamp(time: Timestamp) -> int:
    """A protobuf Timestamp in ms. One whose `seconds` lie beyond the year 9999 was filled in a finer unit."""
    if abs(time.seconds) >= _END_S:
        return ms_of_number(time.seconds)
    return int(time.seconds * 1000 + time.nanos // 1_000_000)


def shown_ms(time_ms: int) -> str:
    """A time as a reason shows it."""
    try:
        return (_EPOCH + time_ms * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return f"{time_ms} ms since 1970"


@lru_cache(maxsize=64)
def earliest_ms(year: int) -> int:
    """Where a year begins, in UTC."""
    return (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND


@lru_cache(maxsize=64)
def _rule(earliest_year: int, time_zone: str) -> TimeRule:
    # UTC needs no database of zones, which small containers lack.
    zone = None if not time_zone else UTC if time_zone == "UTC" else ZoneInfo(time_zone)
    return TimeRule(earliest_ms(earliest_year), zone)


def _ms_of_pair(value: dict[str, object]) -> int:
    try:
        seconds, nanos = (int(value.get(name, 0)) for name in ("seconds", "nanos"))  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise TimeError(f"must be {ALLOWED}") from None
    return ms_of_number(seconds) + nanos // 1_000_000


def _hint(time_ms: int) -> str:
    """The likely mistake, where a time of 1990 to 2096 lies in January 1970 since its seconds were taken for ms."""
    return ": seconds were perhaps taken for milliseconds" if 631_152_000 <= time_ms < 4_000_000_000 else ""
