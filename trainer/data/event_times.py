"""The column `timestamp` of a file as seconds since 1970, or as an order of events.

Shapes: R rows of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds
from numpy.typing import NDArray

from engine.events.times import ALLOWED, MAX_TIME_MS, TimeError, TimeRule, seconds_of_numbers, shown_ms
from trainer.data.columns import NUMBERS, as_numbers
from trainer.data.file_error import FileError, as_file_error
from trainer.data.table import Table, as_numpy

_ORDER_BELOW = 1e8  # As seconds it is March 1973, so a column of whole numbers below it holds no times but an order.
_TIME = f"{ALLOWED}; or whole numbers below 1e8 in all rows, which are an order"
# Dates that were written as numbers, by their digits: 20240131 is the last of January 2024, and no number of seconds.
_DATE_DIGITS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_DATE_YEARS = (1970, 2100)
_SEED = 20_241  # of the order in which those whose events are only ordered come last


def read_times(table: Table, rule: TimeRule) -> tuple[NDArray[np.float64], bool]:
    """[R] times, and whether they are in seconds since 1970 and not a mere order.

    Raises:
        FileError: names the row, what it holds and what it must be.
    """
    time, timed = _seconds_or_order(table, rule)
    if not timed:
        return time, False
    table.check(pa.array(~np.isfinite(time)), "timestamp", _TIME)
    earliest = f"a time not before {shown_ms(rule.earliest_ms)} (events.earliest_year): {_TIME}"
    table.check(pa.array(time < rule.earliest_ms / 1000), "timestamp", earliest)
    table.check(pa.array(time > MAX_TIME_MS / 1000), "timestamp", "a time in the years up to 9999")
    return time, True


def parsed(table: Table, name: str, parse: Callable[[str | None], float | None], allowed: str) -> NDArray[np.float64]:
    """[R] numbers of a column of text; each distinct cell is parsed once, since logs repeat their times."""
    encoded = table.columns[name].fill_null("").dictionary_encode()
    number: list[float | None] = []
    for cell in encoded.dictionary.to_pylist():
        try:
            number.append(parse(cell))
        except TimeError as error:
            # A dictionary is in the order of first appearance, so that this is the first cell that is wrong.
            table.check(pc.equal(encoded.indices, len(number)), name, str(error).removeprefix("must be "))
    at = as_numpy(encoded.indices)
    wrong = np.array([value is None for value in number])
    table.check(pa.array(wrong[at]), name, allowed)
    return np.array(number, np.float64)[at]


def number_of(cell: str | None) -> float | None:
    """The number that a cell holds, None where it holds none."""
    try:
        return None if not cell or "_" in cell else float(cell)
    except ValueError:
        return None


def _seconds_or_order(table: Table, rule: TimeRule) -> tuple[NDArray[np.float64], bool]:
    column = table.columns["timestamp"]
    if kinds.is_temporal(column.type) and not kinds.is_time(column.type) and not kinds.is_duration(column.type):
        return _of_temporal(table, column, rule), True
    if kinds.is_string(column.type):
        # The first cell decides, so that one broken cell is not taken for another way to write times.
        if number_of(column[0].as_py()) is None:
            return parsed(table, "timestamp", _seconds(rule), _TIME), True
        number = parsed(table, "timestamp", number_of, _TIME)
    else:
        numbers = as_numbers(column)
        if numbers is None:
            raise FileError(f"{table.path}: timestamp must be times, {NUMBERS}, got a column of {column.type}")
        number = as_numpy(numbers)
    whole = bool(np.all(np.isfinite(number) & (number == np.floor(number))))
    if whole:
        _refuse_dates(table, number)
    if whole and bool(np.all(np.abs(number) < _ORDER_BELOW)):
        return number, False
    return seconds_of_numbers(number), True


def _refuse_dates(table: Table, number: NDArray[np.float64]) -> None:
    """Raises FileError where all numbers [R] are dates such as 20240131.

    Some of them would be taken for an order, and others for times of another century, without a word.
    """
    first = int(number[0])
    form = _DATE_DIGITS.get(len(str(first)), "")
    date = _date(first, form)
    if date is None or any(_date(int(each), form) is None for each in np.unique(number).tolist()):
        return
    hint = f"a date that is written as a number is none of them: write {date.isoformat()}Z for {first}"
    raise table.error(0, "timestamp", f"{ALLOWED}; {hint}")


def ends_together(who: NDArray[np.int64], order: NDArray[np.float64]) -> NDArray[np.float64]:
    """[E] an order of each one's events, moved so that the last of everybody's come within one step, in a drawn order.

    An order says nothing of different users together. The newest part of a log, which a training is judged on, must be
    the last that everybody did, not what those did who did most. And no two last events may be of the same time, or a
    part of the log would hold those of all or of none: of users with three events there would be nothing left to learn.
    """
    users = int(who.max(initial=-1)) + 1
    last = np.full(users, -np.inf)
    np.maximum.at(last, who, order)
    drawn = np.random.default_rng(_SEED).permutation(users) / max(1, users)
    return order + (order.max(initial=0.0) - last + drawn)[who]


def _date(number: int, form: str) -> datetime | None:
    try:
        date = datetime.strptime(str(number), form)
    except ValueError:
        return None
    # Of fewer digits than the form has, `strptime` makes a date as well.
    return date if date.strftime(form) == str(number) and _DATE_YEARS[0] <= date.year <= _DATE_YEARS[1] else None


def _of_temporal(table: Table, column: pa.Array, rule: TimeRule) -> NDArray[np.float64]:
    """[R] times of a column that has a type for them."""
    zone = getattr(column.type, "tz", None)
    with as_file_error(table.path):
        if zone is None and rule.zone is None:
            raise FileError(
                f"{table.path}: timestamp must have a time zone, got a column of {column.type} without one:"
                " set events.time_zone (OUSEL_EVENTS__TIME_ZONE), such as UTC"
            )
        instant = column.cast(pa.timestamp("us", tz=zone), safe=False)
        if zone is None:
            instant = pc.assume_timezone(instant, str(rule.zone), ambiguous="earliest", nonexistent="earliest")
        us = instant.cast(pa.int64())
    return as_numpy(us.cast(pa.float64(), safe=False)) / 1e6


def _seconds(rule: TimeRule) -> Callable[[str | None], float | None]:
    def parse(cell: str | None) -> float | None:
        return rule.ms(cell) / 1000 if cell else None

    return parse
