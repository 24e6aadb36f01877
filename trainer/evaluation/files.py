"""Files of events and of items: CSV, gzip'd CSV and Parquet, checked cell by cell at the edge.

Ids are text, byte for byte: "007" is not 7, and "NA" is an id like any other. Empty cells mean that there is none.

Shapes: E events, R rows of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.evaluation.log import Events, Ints
from trainer.evaluation.table import FileError, Table, as_file_error, as_numpy, read_table

_EVENT_COLUMNS = ("user_id", "session_id", "item_id", "timestamp", "kind", "value", "split")
_ITEM_COLUMNS = ("item_id", "title", "categories")
_DEFAULT_KIND = "view"
_ORDER_BELOW = 1e8  # seconds: March 1973, so a whole number below it is no time but a place in an order
_SECONDS_BELOW = 1e11  # the year 5138: what is above counts in milliseconds or finer
_TIME = "a finite number of seconds since 1970 below 1e11, an order, or an ISO 8601 time"
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


def read_rows(path: Path) -> Rows:
    """Reads and checks a file of events.

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
    time, ordinal = _times(table)
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


def read_events(path: Path, items: Path | None = None) -> Events:
    """The events of a file in log order, and with `items` the catalog items that no event names as well.

    A session id means one session wherever it stands. Kinds are "view" where the file names none.
    """
    rows = read_rows(path)
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


def _times(table: Table) -> tuple[NDArray[np.float64], bool]:
    """[R] times, and whether they are but an order."""
    column = table.columns["timestamp"]
    numeric = True
    if pa.types.is_temporal(column.type):
        numeric = False
        with as_file_error(table.path):
            zone = getattr(column.type, "tz", None)
            us = column.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
        time = as_numpy(us.cast(pa.float64(), safe=False)) / 1e6
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # The first cell decides, so that one broken cell is not taken for another way to write times.
        numeric = _number(column[0].as_py()) is not None
        time = _parsed(table, "timestamp", _number if numeric else _iso, _TIME)
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        time = as_numpy(column.cast(pa.float64(), safe=False))
    else:
        raise FileError(f"{table.path}: timestamp must be numbers or times, got a column of {column.type}")
    table.check(pa.array(~(np.abs(time) < _SECONDS_BELOW)), "timestamp", _TIME)
    return time, numeric and bool(np.all((np.abs(time) < _ORDER_BELOW) & (time == np.floor(time))))


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
    number = [parse(cell) for cell in encoded.dictionary.to_pylist()]
    at = as_numpy(encoded.indices)
    wrong = np.array([value is None for value in number])
    table.check(pa.array(wrong[at]), name, allowed)
    return np.array(number, np.float64)[at]


def _number(cell: str | None) -> float | None:
    try:
        return None if not cell or "_" in cell else float(cell)
    except ValueError:
        return None


def _iso(cell: str | None) -> float | None:
    """Seconds since 1970 of a time that is in UTC unless it says otherwise."""
    try:
        time = datetime.fromisoformat(cell or "")
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


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
