"""Files of events and of items: CSV, gzip'd CSV and Parquet, checked cell by cell at the edge.

Ids are text, byte for byte: "007" is not 7, and "NA" is an id like any other. Empty cells mean that there is none.

Shapes: E events, R rows of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.config import EventsConfig
from engine.events.times import ALLOWED, MAX_TIME_MS, TimeError, TimeRule, seconds_of_numbers, shown_ms
from trainer.evaluation.log import Events, Ints
from trainer.evaluation.table import FileError, Table, as_file_error, as_numpy, read_table

_EVENT_COLUMNS = ("user_id", "session_id", "item_id", "timestamp", "kind", "value", "split")
_ITEM_COLUMNS = ("item_id", "title", "categories")
_DEFAULT_KIND = "view"
_ORDER_BELOW = 1e8  # As seconds it is March 1973, so a column of whole numbers below it holds no times but an order.
_TIME = f"{ALLOWED}; or whole numbers below 1e8 in all rows, which are an order"
_DEFAULT_RULE = TimeRule.of(EventsConfig())
_VALUE = "a finite number >= 0"


@dataclass(frozen=True)
class Items:
    """What a file of items says, by item id and in the order of the file."""

    title: dict[str, str]
    categories: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Rows:
    """The rows of a file of events in log order: by time, and where that is equal in the order of the file.

    Attributes:
        user, session, kind: [E] strings, "" where the file names none.
        item: [E] strings.
        time: [E] float64, see `Events`.
        value: [E] float32.
        test: [E] bool, None where the file has no split.
        place: [E] where each row stands in the file, from 0.
        timed: see `Events`.
    """

    user: pa.Array
    session: pa.Array
    item: pa.Array
    kind: pa.Array
    time: NDArray[np.float64]
    value: NDArray[np.float32]
    test: NDArray[np.bool_] | None
    place: Ints
    timed: bool

    def __len__(self) -> int:
        return len(self.item)


def read_rows(path: Path, rule: TimeRule) -> Rows:
    """Reads and checks a file of events.

    Args:
        rule: how its times are read; the log's are read so, too.

    Raises:
        FileError: names the line, the column, the cell and what it must be.
    """
    table = read_table(path, _EVENT_COLUMNS)
    table.require("item_id", "timestamp")
    if not {"user_id", "session_id"} & table.columns.keys():
        raise FileError(f"{path}: one of the columns user_id and session_id must be there, got neither")
    user, session, item = table.text("user_id"), table.text("session_id"), table.text("item_id")
    table.check(pc.equal(item, ""), "item_id", "a non-empty id")
    nobody = pc.and_(pc.equal(user, ""), pc.equal(session, ""))
    if "user_id" in table.columns:
        table.check(nobody, "user_id", "an id where there is no session_id")
    table.check(nobody, "session_id", "an id where there is no user_id")
    time, ordinal = _times(table, rule)
    value = _values(table)
    test = None
    if "split" in table.columns:
        split = table.text("split")
        table.check(pc.invert(pc.is_in(split, pa.array(["train", "test"]))), "split", "'train' or 'test'")
        test = as_numpy(pc.equal(split, "test"))
    order = np.argsort(time, kind="stable")
    return Rows(
        user=user.take(order),
        session=session.take(order),
        item=item.take(order),
        kind=table.text("kind").take(order),
        time=time[order],
        value=value[order],
        test=None if test is None else test[order],
        place=order,
        timed=not ordinal,
    )


def read_events(path: Path, items: Path | None = None, rule: TimeRule = _DEFAULT_RULE) -> Events:
    """The events of a file in log order, and with `items` the catalog items that no event names as well.

    A session id means one session wherever it stands. Kinds are "view" where the file names none.
    """
    rows = read_rows(path, rule)
    item_of, item_ids = _numbers(rows.item)
    user_of, user_ids = _numbers_of_either(rows.user, rows.session)
    session_of, session_ids = _numbers_of_either(rows.session, rows.user)
    kind_of, kind_ids = _numbers(pc.if_else(pc.equal(rows.kind, ""), _DEFAULT_KIND, rows.kind))
    if items is not None:
        item_ids = list(dict.fromkeys((*item_ids, *read_items(items).title)))
    return Events(
        user=user_of,
        session=session_of,
        item=item_of,
        time=rows.time,
        kind=kind_of,
        value=rows.value,
        test=rows.test,
        items=item_ids,
        users=user_ids,
        sessions=session_ids,
        kinds=kind_ids,
        timed=rows.timed,
    )


def read_items(path: Path) -> Items:
    """Titles and categories; an item without them has the empty title and no categories."""
    table = read_table(path, _ITEM_COLUMNS)
    table.require("item_id")
    item = table.text("item_id")
    table.check(pc.equal(item, ""), "item_id", "a non-empty id")
    number, ids = _numbers(item)
    again = np.ones(table.rows, np.bool_)
    again[np.unique(number, return_index=True)[1]] = False
    table.check(pa.array(again), "item_id", "there once")
    categories = (
        tuple(dict.fromkeys(part for part in cell.split("|") if part)) for cell in table.text("categories").to_pylist()
    )
    return Items(
        title=dict(zip(ids, table.text("title").to_pylist(), strict=True)),
        categories=dict(zip(ids, categories, strict=True)),
    )


def _times(table: Table, rule: TimeRule) -> tuple[NDArray[np.float64], bool]:
    """[R] times in seconds since 1970, or places in an order; and whether they are but an order."""
    column = table.columns["timestamp"]
    if pa.types.is_temporal(column.type):
        time = _temporal(table, column, rule)
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # The first cell decides, so that one broken cell is not taken for another way to write times.
        numeric = _number(column[0].as_py()) is not None
        number = _parsed(table, "timestamp", _number if numeric else _seconds(rule), _TIME)
        if numeric and _is_order(number):
            return number, True
        time = seconds_of_numbers(number) if numeric else number
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        number = as_numpy(column.cast(pa.float64(), safe=False))
        if _is_order(number):
            return number, True
        time = seconds_of_numbers(number)
    else:
        raise FileError(f"{table.path}: timestamp must be numbers or times, got a column of {column.type}")
    table.check(pa.array(~np.isfinite(time)), "timestamp", _TIME)
    earliest = f"a time not before {shown_ms(rule.earliest_ms)} (events.earliest_year): {_TIME}"
    table.check(pa.array(time < rule.earliest_ms / 1000), "timestamp", earliest)
    table.check(pa.array(time > MAX_TIME_MS / 1000), "timestamp", "a time in the years up to 9999")
    return time, False


def _is_order(number: NDArray[np.float64]) -> bool:
    return bool(np.all((np.abs(number) < _ORDER_BELOW) & (number == np.floor(number))))


def _temporal(table: Table, column: pa.Array, rule: TimeRule) -> NDArray[np.float64]:
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


def _values(table: Table) -> NDArray[np.float32]:
    column = table.columns.get("value")
    if column is None:
        return np.ones(table.rows, np.float32)
    none = as_numpy(column.is_null())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        none |= as_numpy(pc.equal(column, "").fill_null(True))
        value = _parsed(table, "value", lambda cell: _number(cell) if cell else 1.0, _VALUE)
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        value = as_numpy(column.cast(pa.float64(), safe=False))
    else:
        raise FileError(f"{table.path}: value must be numbers, got a column of {column.type}")
    with np.errstate(over="ignore"):
        single: NDArray[np.float32] = np.where(none, 1.0, value).astype(np.float32)
    table.check(pa.array(~((single >= 0) & np.isfinite(single))), "value", _VALUE)
    return single


def _parsed(table: Table, name: str, parse: Callable[[str | None], float | None], allowed: str) -> NDArray[np.float64]:
    """[R] each distinct cell is parsed once: logs repeat their times."""
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


def _number(cell: str | None) -> float | None:
    try:
        return None if not cell or "_" in cell else float(cell)
    except ValueError:
        return None


def _numbers(ids: pa.Array) -> tuple[Ints, list[str]]:
    """Numbers by first appearance, and the ids by number."""
    encoded = ids.dictionary_encode()
    return as_numpy(encoded.indices).astype(np.int64), encoded.dictionary.to_pylist()


def _numbers_of_either(ids: pa.Array, otherwise: pa.Array) -> tuple[Ints, list[str]]:
    """As `_numbers`, of `otherwise` where there is no id. A user "5" and an anonymous session "5" stay apart."""
    number, names = _numbers(ids)
    other, other_names = _numbers(otherwise)
    key = np.where(as_numpy(pc.equal(ids, "")), len(names) + other, number)
    distinct, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first)
    rank = np.empty_like(by_appearance)
    rank[by_appearance] = np.arange(len(first))
    names += other_names
    return rank[inverse], [names[at] for at in distinct[by_appearance].tolist()]
