"""One rule reads the times of the log, of files and of calls, and refuses those that are implausible."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.config import EventsConfig
from engine.events.times import (
    MAX_TIME_MS,
    TimeError,
    TimeRule,
    earliest_ms,
    ms_of_number,
    ms_of_timestamp,
    seconds_of_numbers,
)
from tests.engine.events.payloads import NOW_MS

RULE = TimeRule.of(EventsConfig())
plausible_ms = st.integers(earliest_ms(1990), MAX_TIME_MS)


@given(plausible_ms)
def test_a_plausible_time_is_read_alike_in_every_unit_and_writing(time_ms: int) -> None:
    seconds, ms = divmod(time_ms, 1000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    exact_ones: list[object] = [time_ms, time_ms * 1000, time_ms * 10**6, moment.isoformat()]
    if seconds < 2**33:  # A float of later seconds has no room for microseconds.
        exact_ones.append(f"{seconds}.{ms:03}")
    for exact in exact_ones:
        assert RULE.ms(exact) == time_ms, exact
        assert RULE.ms(str(exact)) == time_ms, exact
    assert RULE.ms({"seconds": str(seconds), "nanos": ms * 10**6}) == time_ms
    assert RULE.ms(seconds) == seconds * 1000
    assert RULE.problem("time", time_ms) is None
    # Of a protobuf Timestamp, the finer units can stand in `seconds` only where they exceed its years.
    assert ms_of_timestamp(Timestamp(seconds=seconds, nanos=ms * 10**6)) == time_ms
    assert ms_of_timestamp(Timestamp(seconds=time_ms)) == time_ms
    assert ms_of_timestamp(Timestamp(seconds=time_ms * 1000)) == time_ms


@given(st.datetimes(datetime(1990, 1, 2), datetime(9999, 12, 30)), st.integers(-14 * 60, 14 * 60))
def test_a_zone_shifts_a_time_and_a_time_without_one_is_refused_by_default(local: datetime, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    expected = (local.replace(tzinfo=zone) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert RULE.ms(local.replace(tzinfo=zone).isoformat(" ")) == expected
    with pytest.raises(TimeError, match="must be a time with its zone"):
        RULE.ms(local.isoformat())


def test_the_setting_gives_times_without_a_zone_theirs_and_leaves_the_others() -> None:
    berlin = TimeRule.of(EventsConfig(time_zone="Europe/Berlin"))
    assert berlin.ms("2026-03-28T08:00:00") == RULE.ms("2026-03-28T07:00:00Z")
    assert berlin.ms("2026-03-31 08:00") == RULE.ms("2026-03-31T06:00:00Z")  # in summer
    assert berlin.ms("2026-03-31T08:00:00Z") == RULE.ms("2026-03-31T08:00:00Z")
    assert TimeRule.of(EventsConfig(time_zone="UTC")).ms("2026-03-31") == RULE.ms("2026-03-31T00:00:00Z")
    with pytest.raises(ValidationError, match="time_zone must be a name of the IANA database"):
        EventsConfig(time_zone="Atlantis/Capital")


@given(st.integers(earliest_ms(1990) // 1000, 4 * 10**9 - 1))
def test_seconds_that_were_taken_for_milliseconds_are_refused_with_that_hint(seconds: int) -> None:
    problem = RULE.problem("time", ms_of_timestamp(Timestamp(seconds=seconds // 1000, nanos=seconds % 1000 * 10**6)))
    assert problem is not None
    assert "time must not be before 1990-01-01T00:00:00.000Z (events.earliest_year), got 1970-0" in problem
    assert problem.endswith("seconds were perhaps taken for milliseconds")


def test_a_setting_lets_archives_in() -> None:
    archive = TimeRule.of(EventsConfig(earliest_year=1970))
    assert archive.problem("time", archive.ms("1971-05-01T00:00:00Z")) is None
    assert RULE.problem("time", archive.ms("1971-05-01T00:00:00Z")) is not None
    assert RULE.problem("time", earliest_ms(1990) - 1) is not None


@pytest.mark.parametrize(
    "value",
    [
        "", "now", "nan", "inf", "-inf", "1e999", "1_000", " 5", "0x10", "2026-02-30T00:00:00Z", "2026-03-31T25:00:00Z",
        "10000-01-01T00:00:00Z", "9" * 24, "٣", "-99999999999999", 10**40, -(10**40), 1e300, float("nan"), float("inf"),
        None, True, [], {}, {"seconds": None}, {"seconds": "x"}, {"seconds": 5, "nanos": []}, {"seconds": 1, "ms": 2},
    ],
)  # fmt: skip
def test_a_value_that_is_no_time_is_refused_with_words_for_the_reason(value: object) -> None:
    with pytest.raises(TimeError, match=r"^must be "):
        RULE.ms(value)


@given(st.lists(st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1))
def test_columns_of_numbers_are_read_as_single_numbers_are(numbers: list[float]) -> None:
    seconds = seconds_of_numbers(np.array(numbers, np.float64))
    for number, second in zip(numbers, seconds.tolist(), strict=True):
        assert second == pytest.approx(ms_of_number(float(number)) / 1000, abs=0.001)


def test_the_units_do_not_overlap_between_the_earliest_plausible_time_and_the_year_9999() -> None:
    for unit in (10**3, 10**6, 10**9):
        assert earliest_ms(1990) // 1000 * unit // (unit // 1000) > MAX_TIME_MS // 1000
    assert ms_of_number(NOW_MS // 1000) == NOW_MS // 1000 * 1000
    assert ms_of_number(MAX_TIME_MS // 1000) == MAX_TIME_MS // 1000 * 1000
