"""The shop that several benchmarks share: what its users, items and records are called, what happens in it, its log."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from itertools import islice

import numpy as np
from ousel.v1 import catalog_pb2, event_pb2

AT_ONCE = 5000  # records on their way to the broker; of more, those that wait longest would expire
_TIMEOUT_S = 300.0


def user_id(user: int) -> str:
    return f"user-{user}"


def item_id(item: int) -> str:
    return f"item-{item}"


def catalog_record(item: int, title: str | None = None, *, deleted: bool = False) -> catalog_pb2.Item:
    """The catalog's record of an item; a title that says which item it is unless another is given."""
    return catalog_pb2.Item(
        item_id=item_id(item),
        title=title or f"Title of item {item}",
        categories=[f"c{item % 50}"],
        deleted=deleted,
    )


def write(sent: Iterable[Future[event_pb2.LogPosition]]) -> None:
    """Goes through records that are sent as they are asked for; returns once the log has all of them.

    Raises:
        Exception: one of them did not reach the log.
    """
    sent = iter(sent)
    while batch := list(islice(sent, AT_ONCE)):
        for future in batch:
            future.result(_TIMEOUT_S)


class Events:
    """Draws events: any user, of items half by Zipf's law and half any.

    Args:
        visitors: share of events by users who come once and never again.
    """

    def __init__(self, users: int, items: int, seed: int, visitors: float = 0.0) -> None:
        self._users, self._items, self._visitors = users, items, visitors
        self._draw = np.random.default_rng(seed)
        self._numbered = 0
        self._seed = seed

    def next(self) -> tuple[int, event_pb2.Event]:
        draw = self._draw
        user = int(draw.integers(self._users))
        if self._visitors and draw.random() < self._visitors:
            user = self._users * (self._seed + 1) + self._numbered
        item = int(draw.zipf(1.2) if draw.random() < 0.5 else draw.integers(self._items)) % self._items
        event = event_pb2.Event(
            event_id=f"{self._seed}-{self._numbered}", user_id=user_id(user), item_id=item_id(item), kind="view"
        )
        event.time.FromMilliseconds(time.time_ns() // 1_000_000)
        self._numbered += 1
        return user, event
