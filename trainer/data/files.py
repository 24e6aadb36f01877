"""Files of events and of items, checked value by value at the edge.

Ids are text, byte for byte: "007" is not 7, and "NA" is an id like any other. Empty cells mean that there is none.

Shapes: E events, R rows of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds
from numpy.typing import NDArray

from engine.config import EventsConfig
from engine.events.times import TimeRule
from trainer.data.columns import NUMBERS, as_numbers
from trainer.data.event_times import ends_together, number_of, parsed, read_times
from trainer.data.file_error import FileError
from trainer.data.log import Events, Ints
from trainer.data.table import Table, as_numpy, read_table

_EVENT_COLUMNS = ("user_id", "session_id", "item_id", "timestamp", "kind", "value")
_SPLIT = "split"
_ITEM_COLUMNS = ("item_id", "title", "categories")
_DEFAULT_KIND = "view"
_DEFAULT_RULE = TimeRule.of(EventsConfig())
_VALUE = "a finite number >= 0"


@dataclass(frozen=True)
class Items:
    """What a file of items says, by item id and in the order of the file.

    Attributes:
        place: the file and the line, or the row, of an item that is counted from 0.
    """

    title: dict[str, str]
    categories: dict[str, tuple[str, ...]]
    place: Callable[[int], str] = field(compare=False)


@dataclass(frozen=True)
class Rows:
    """The rows of a file of events in log order: by time, and where that is equal in the order of the file.

    Attributes:
        user, session, kind: [E] strings, "" where the file names none.
        item: [E] strings.
        time: [E] float64, see `Events`.
        value: [E] float32.
        test: [E] bool, None where the file has no split, or where it is not read.
        row: [E] where each event stands in the file, from 0.
        timed: see `Events`.
        place: the file and the line, or the row, of a row that is counted from 0.
    """

    user: pa.Array
    session: pa.Array
    item: pa.Array
    kind: pa.Array
    time: NDArray[np.float64]
    value: NDArray[np.float32]
    test: NDArray[np.bool_] | None
    row: Ints
    timed: bool
    place: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.item)

    def ended_together(self) -> Rows:
        """Where `time` is a mere order, the same events with the last of everybody's together; see `ends_together`."""
        if self.timed:
            return self
        who, _ = _numbers_of_either(self.user, self.session)
        time = ends_together(who, self.time)
        at = np.argsort(time, kind="stable")
        return replace(
            self, user=self.user.take(at), session=self.session.take(at), item=self.item.take(at),
            kind=self.kind.take(at), time=time[at], value=self.value[at], row=self.row[at],
            test=None if self.test is None else self.test[at],
        )  # fmt: skip


def read_rows(path: Path, rule: TimeRule, *, split: bool) -> Rows:
    """Reads and checks a file of events.

    Args:
        rule: how its times are read; the log's are read so, too.
        split: whether the column `split` is read: only protocols of `evaluate` ask for it.

    Raises:
        FileError: names the line, the column, the cell and what it must be.
    """
    known = (*_EVENT_COLUMNS, _SPLIT) if split else _EVENT_COLUMNS
    table = read_table(path, known, [["item_id"], ["timestamp"], ["user_id", "session_id"]])
    user, session, item = table.text("user_id"), table.text("session_id"), table.text("item_id")
    table.check(pc.equal(item, ""), "item_id", "a non-empty id")
    nobody = pc.and_(pc.equal(user, ""), pc.equal(session, ""))
    if "user_id" in table.columns:
        table.check(nobody, "user_id", "an id where there is no session_id")
    table.check(nobody, "session_id", "an id where there is no user_id")
    time, timed = read_times(table, rule)
    value = _values(table)
    test = None
    if _SPLIT in table.columns:
        part = table.text(_SPLIT)
        table.check(pc.invert(pc.is_in(part, pa.array(["train", "test"]))), _SPLIT, "'train' or 'test'")
        test = as_numpy(pc.equal(part, "test"))
    order = np.argsort(time, kind="stable")
    return Rows(
        user=user.take(order),
        session=session.take(order),
        item=item.take(order),
        kind=table.text("kind").take(order),
        time=time[order],
        value=value[order],
        test=None if test is None else test[order],
        row=order,
        timed=timed,
        place=table.place,
    )


def read_events(path: Path, items: Items | None = None, rule: TimeRule = _DEFAULT_RULE) -> Events:
    """The events of a file in log order, and with `items` the catalog items that no event names as well.

    A session id means one session wherever it stands. Kinds are "view" where the file names none.
    """
    rows = read_rows(path, rule, split=True)
    item_of, item_ids = _numbers(rows.item)
    user_of, user_ids = _numbers_of_either(rows.user, rows.session)
    session_of, session_ids = _numbers_of_either(rows.session, rows.user)
    kind_of, kind_ids = _numbers(pc.if_else(pc.equal(rows.kind, ""), _DEFAULT_KIND, rows.kind))
    if items is not None:
        item_ids = list(dict.fromkeys((*item_ids, *items.title)))
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
        names_sessions=not bool(pc.all(pc.equal(rows.session, "")).as_py()),
    )


def read_items(path: Path) -> Items:
    """Titles and categories; an item without them has the empty title and no categories."""
    table = read_table(path, _ITEM_COLUMNS, [["item_id"]])
    item = table.text("item_id")
    table.check(pc.equal(item, ""), "item_id", "a non-empty id")
    number, ids = _numbers(item)
    again = np.ones(table.rows, np.bool_)
    again[np.unique(number, return_index=True)[1]] = False
    table.check(pa.array(again), "item_id", "there once")
    lists = table.lists("categories")
    if lists is None:
        lists = [cell.split("|") for cell in table.text("categories").to_pylist()]
    categories = (tuple(dict.fromkeys(filter(None, names))) for names in lists)
    return Items(
        title=dict(zip(ids, table.text("title").to_pylist(), strict=True)),
        categories=dict(zip(ids, categories, strict=True)),
        place=table.place,
    )


def _values(table: Table) -> NDArray[np.float32]:
    column = table.columns.get("value")
    if column is None:
        return np.ones(table.rows, np.float32)
    none = as_numpy(column.is_null())
    if kinds.is_string(column.type):
        none |= as_numpy(pc.equal(column, "").fill_null(True))
        value = parsed(table, "value", lambda cell: number_of(cell) if cell else 1.0, _VALUE)
    else:
        numbers = as_numbers(column)
        if numbers is None:
            raise FileError(f"{table.path}: value must be {NUMBERS}, got a column of {column.type}")
        value = as_numpy(numbers)
    with np.errstate(over="ignore"):
        single: NDArray[np.float32] = np.where(none, 1.0, value).astype(np.float32)
    table.check(pa.array(~((single >= 0) & np.isfinite(single))), "value", _VALUE)
    return single


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
