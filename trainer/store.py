"""The newest events of the log as columns, under numbers of the store's own.

The rows of the engine's state stand for somebody else once they were evicted and given away. Here a number stays with
its user or item for as long as an event in the store names it.

Shapes: E events, U users and I items that they name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.events.batch import EventBatch
from engine.state.id_map import IdMap
from engine.state.sessions import UNNAMED
from engine.state.subjects import subject_key

_DTYPES = {
    "user": torch.int32,
    "item": torch.int32,
    "time_ms": torch.int64,
    "kind": torch.int8,
    "value": torch.float32,
    "partition": torch.int32,
    "session_name": torch.int64,
}
_GONE = -1  # the user of a forgotten event


@dataclass(frozen=True)
class StoredEvents:
    """Copies of the events at hand, in the order in which they came; every column is [E].

    Attributes:
        user: int64 numbers below `users`, each of them named.
        item: int64 positions in `item_ids`, each of them named.
        time_ms: int64 event time.
        kind: int64.
        value: float32.
        partition: int64; the events of one are in log order.
        session_name: int64, UNNAMED where the producer names none.
    """

    user: Tensor
    item: Tensor
    time_ms: Tensor
    kind: Tensor
    value: Tensor
    partition: Tensor
    session_name: Tensor
    users: int
    item_ids: Sequence[str]


class EventStore:
    """Appends, forgets, and lets the oldest go.

    Args:
        limit: events at hand; twice as many are held at most, so that dropping the oldest costs O(1) per event.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._users, self._items = IdMap(), IdMap()  # users by subject_key
        self._columns = {name: torch.zeros(0, dtype=dtype) for name, dtype in _DTYPES.items()}
        self._used = 0  # places in the columns
        self._gone = 0  # forgotten ones among them

    def __len__(self) -> int:
        """Events at hand."""
        return min(self._used - self._gone, self._limit)

    @property
    def named(self) -> tuple[int, int]:
        """Users and items that have a number, those of events beyond the limit included."""
        return self._users.count, self._items.count

    def append(self, events: EventBatch) -> None:
        """Adds events, oldest first."""
        if len(events) > self._limit:
            events = events.select(slice(len(events) - self._limit, None))
        if self._used + len(events) > 2 * self._limit:
            self._trim()
        end = self._used + len(events)
        self._reserve(end)
        news = {
            "user": self._users.add(map(subject_key, events.user_id, events.session_id)),
            "item": self._items.add(events.item_id),
            "time_ms": events.time_ms,
            "kind": events.kind,
            "value": events.value,
            "partition": events.partition,
            "session_name": _session_names(events.session_id),
        }
        for name, column in news.items():
            self._columns[name][self._used : end] = torch.from_numpy(column)
        self._used = end

    def forget(self, places: Iterable[tuple[str, int]]) -> None:
        """Wipes all events of these subjects in these partitions at once, and the names that no event has any more.

        Args:
            places: (subject, partition); all of them cost one pass over the store.
        """
        asked = [
            (number, partition) for subject, partition in places if (number := self._users.get(subject)) is not None
        ]
        if not asked:
            return
        number, partition = torch.tensor(asked).T
        named = torch.zeros(len(self._users) + 1, dtype=torch.bool)
        named[number + 1] = True
        theirs = named[self._columns["user"][: self._used] + 1].nonzero().squeeze(1)
        user, lies_in = (self._columns[name][theirs].to(torch.int64) for name in ("user", "partition"))
        partitions = int(torch.cat([partition, lies_in]).max()) + 1
        forgotten = torch.isin(user * partitions + lies_in, number * partitions + partition)
        at = theirs[forgotten]
        # The places stay until the next trim: moving everything behind them for each request would be slow.
        for column in self._columns.values():
            column[at] = 0
        self._columns["user"][at] = _GONE
        self._gone += len(at)
        for unnamed in set(number.tolist()) - set(user[~forgotten].tolist()):
            self._users.remove(unnamed)

    def newest(self) -> StoredEvents:
        """The events at hand, under numbers without gaps."""
        at = self._at_hand()
        columns = {name: column[at] for name, column in self._columns.items()}
        columns["user"], users = _dense(columns["user"], len(self._users))
        columns["item"], items = _dense(columns["item"], len(self._items))
        whole = {name: c.to(torch.int64) if name in ("kind", "partition") else c for name, c in columns.items()}
        return StoredEvents(**whole, users=len(users), item_ids=[self._items.id_of(row) for row in items.tolist()])

    def _at_hand(self) -> Tensor:
        """[E] places of the newest events that were not forgotten."""
        return (self._columns["user"][: self._used] != _GONE).nonzero().squeeze(1)[-self._limit :]

    def _trim(self) -> None:
        """Drops what is forgotten or beyond the limit, and the ids that nothing names any more."""
        at = self._at_hand()
        for column in self._columns.values():
            column[: len(at)] = column[at]
            column[len(at) :] = 0
        self._used, self._gone = len(at), 0
        for ids, name in ((self._users, "user"), (self._items, "item")):
            unnamed = torch.ones(len(ids), dtype=torch.bool)
            unnamed[self._columns[name][: self._used].to(torch.int64)] = False
            for number in unnamed.nonzero().squeeze(1).tolist():
                if ids.id_of(number):
                    ids.remove(number)

    def _reserve(self, places: int) -> None:
        room = len(self._columns["user"])
        if places > room:
            grow = max(places, 2 * room, 1024) - room
            self._columns = {name: torch.cat([c, c.new_zeros(grow)]) for name, c in self._columns.items()}


def _dense(numbers: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """`numbers` [E] below `limit` counted without gaps, int64, and which number each stands for."""
    numbers = numbers.to(torch.int64)
    named = torch.zeros(limit, dtype=torch.bool)
    named[numbers] = True
    return (named.cumsum(0) - 1)[numbers], named.nonzero().squeeze(1)


def _session_names(session_ids: Sequence[str]) -> NDArray[np.int64]:
    """[E] numbers that stand for session ids within this process; no hash is ever UNNAMED."""
    return np.array([hash(session_id) if session_id else UNNAMED for session_id in session_ids], dtype=np.int64)
