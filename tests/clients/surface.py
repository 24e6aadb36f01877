"""All public methods of the clients and of their streams, found by looking: one that is added later is tested as well.

A kind of parameter that these tests do not know makes them fail, so that its wrong values are written down here.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any

from ousel import AsyncClient, AsyncSubscription, Client, Credentials, Position, Query, Subscription

CLASSES = (Client, AsyncClient, Subscription, AsyncSubscription)


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class NoOffset(tzinfo):
    """A time zone that can't tell how far it is from UTC."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        raise KeyError("offset")


_NO_TEXT = [7, 0, 1.5, True, False, b"ann", b"", [], ["ann"], {"a": "b"}, object(), Unshowable(), "\udcff", "a\ud800b"]
_NO_NUMBER = ["3", "", b"3", True, False, [], {}, object(), Unshowable(), math.nan, math.inf, -math.inf, 10**400, 1e300]
_NO_WHOLE = [5.0, "5", b"5", True, False, math.nan, [], object(), Unshowable(), 2**64, -(2**64), 10**400]
_NO_TEXTS = ["fruit", b"fruit", 7, True, object(), [1], [b"a"], [None], ["a", 2], ["\udcff"], {3}]
_NO_TIME = [
    0,
    1_700_000_000,
    1.7e9,
    "2024-01-01",
    b"",
    True,
    date(2024, 1, 1),
    timedelta(1),
    datetime(2024, 1, 1),  # without a zone
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),  # before the year 1 in UTC
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    datetime(2024, 1, 1, tzinfo=NoOffset()),
    object(),
    Unshowable(),
]
_PLACE = Position("ousel.events", 0, 1)
_NO_PLACE = [
    "ousel.events",
    7,
    True,
    ("ousel.events", 0, 1),
    object(),
    Unshowable(),
    Position(7, 0, 1),  # type: ignore[arg-type]
    Position("\udcff", 0, 1),
    Position("ousel.events", "0", 1),  # type: ignore[arg-type]
    Position("ousel.events", 0, 1.0),  # type: ignore[arg-type]
    Position("ousel.events", 2**31, 1),
    Position("ousel.events", 0, 2**63),
]
_NO_QUERIES = [
    *("ann", b"ann", 7, True, Query("ann"), object(), Unshowable(), ["ann"], [Query("ann"), {"user_id": "ann"}]),
    [Query(7)],  # type: ignore[arg-type]
    [Query("ann", k=5.0)],  # type: ignore[arg-type]
    [Query("ann", categories="fruit")],
    [Query("ann", exclude_history=1)],  # type: ignore[arg-type]
]
_NO_TEXT_BY_NAME = ["a", b"a", 7, True, ["a"], [("a", "b")], object(), {"a": 3}, {3: "a"}, {"a": None}, {"a": "\udcff"}]

# By the type of a parameter: values that it does not take.
WRONG: dict[Any, list[Any]] = {
    str: _NO_TEXT,
    float: _NO_NUMBER,
    int: _NO_WHOLE,
    bool: [0, 1, "no", "", b"", None, [], object(), Unshowable()],
    Iterable[str]: [None, *_NO_TEXTS],
    Iterable[Query]: [None, *_NO_QUERIES],
    datetime: _NO_TIME,
    Position: _NO_PLACE,
    Mapping[str, str]: _NO_TEXT_BY_NAME,
    str | Sequence[str]: [
        *(value for value in _NO_TEXT if value != ["ann"]),
        ["a:1", 7],
        ["a:1", ""],
        ["a:1", "dns:///b:1"],
        ["a:1", "127.0.0.1:1x"],
    ],
    Credentials: ["secret", b"", 7, 0, True, False, {"token": "secret"}, [], object(), Unshowable()],
}

# And some that it does.
RIGHT: dict[Any, list[Any]] = {
    str: ["apple", "é", "\0"],
    float: [1, 2.5],
    int: [1, 7],
    bool: [True, False],
    Iterable[str]: [(), ["a"], {"a"}, (name for name in ("a", "b")), {"a": 1}],
    Iterable[Query]: [[Query("ann")], (Query(session_id=id_, k=3) for id_ in ("a", "b"))],
    datetime: [datetime(2024, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    Position: [_PLACE],
    Mapping[str, str]: [{}, {"a": "b"}],
    str | Sequence[str]: [["127.0.0.1:1", "127.0.0.1:2"]],
    Credentials: [Credentials()],
}


def methods(kind: type) -> dict[str, Callable[..., Any]]:
    """The public methods of a class by name, and how it is made where its users make it."""
    found = {name: function for name, function in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
    return found | ({"__init__": kind.__init__} if kind in (Client, AsyncClient) else {})


def parameters(method: Callable[..., Any]) -> Iterator[tuple[str, Any, bool, bool]]:
    """Each parameter: its name, its type without None, whether None is allowed, and whether it must be given."""
    hints = typing.get_type_hints(method)
    for name, parameter in list(inspect.signature(method).parameters.items())[1:]:
        kinds = [kind for kind in typing.get_args(hints[name]) if kind is not type(None)]
        optional = type(None) in typing.get_args(hints[name])
        kind = kinds[0] if optional else hints[name]
        assert kind in WRONG, f"write down which values {name}, a {kind}, does not take"
        yield name, kind, optional, parameter.default is inspect.Parameter.empty


def needed(method: Callable[..., Any]) -> dict[str, Any]:
    """Arguments with which a method may be called."""
    given = {name: RIGHT[kind][0] for name, kind, _, must in parameters(method) if must}
    names = inspect.signature(method).parameters
    return given | ({"user_id": "ann"} if "user_id" in names and "session_id" in names else {})


def cases(values: dict[Any, list[Any]]) -> list[Any]:
    """(class, method, parameter, value) for every parameter of every public method."""
    found = []
    for kind in CLASSES:
        for name, method in methods(kind).items():
            for parameter, type_, optional, _ in parameters(method):
                nothing = [] if optional or values is RIGHT or None in values[type_] else [None]
                found += [(kind, name, parameter, value) for value in [*values[type_], *nothing]]
    return found
