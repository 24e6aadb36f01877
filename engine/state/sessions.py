"""Cuts every user's events into sessions, in log order.

Shapes: U users, E events in a batch, L links.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.state.kernels import ITEM, LINK, ORDINAL, TIME, fold_sessions
from engine.state.table import Table

UNNAMED = -1
LINKS = 4  # the latest named sessions that a user is linked to


@dataclass(frozen=True)
class Sessioned:
    """What the sessions say of a batch.

    Attributes:
        ordinal: [E] int32, counts each user's sessions from 1; 0: the event came too late to be of a session.
        previous: [E] int64 item of the event before in the same session, -1 at its start and for a late event.
    """

    ordinal: Tensor
    previous: Tensor


class Sessions:
    """The open session of every user: a new one starts where the name changes, or unnamed events pause too long.

    An event that is more than `gap_ms` older than the newest one of the open session is late. It neither joins that
    session nor ends it, since the session may go on: the event belongs to the user's history, and to no session. Events
    that overtake each other by less belong to the open session in the order of the log. A name says for itself where an
    event belongs, however late.

    Args:
        users: U, how many rows there may be.
        items: generation of each item row, as a `Ring` takes it: a last item that is gone is no previous item.

    Attributes:
        gap_ms: the longest pause between two unnamed events of a session.
        item_column: where in `table` the last item is.
        table: [U, 4 + L] int64 per user: sessions so far; name of the open one, UNNAMED without one; its last item,
            generation << 32 | row; time of its newest event; the names of the last L named sessions, each once, 0 where
            there is none.
    """

    item_column = ITEM

    def __init__(self, users: int, gap_s: float, *, items: Table) -> None:
        self.gap_ms = int(gap_s * 1000)
        self._items = items
        self.table = Table(users, (4 + LINKS,), dtype=torch.int64)

    def fold(self, user: Tensor, name: Tensor, item: Tensor, time_ms: Tensor) -> Sessioned:
        """Assigns E events, oldest first, to sessions; columns [E] int64, `name` UNNAMED where none is given."""
        self.table.note(user)
        found = Sessioned(torch.empty(len(user), dtype=torch.int32), torch.empty(len(user), dtype=torch.int64))
        columns = (column.numpy() for column in (user, name, item, time_ms, found.ordinal, found.previous))
        fold_sessions(self.table.array, self._items.array, self.gap_ms, UNNAMED, *columns)
        return found

    def links(self, rows: Tensor) -> Tensor:
        """[R, L] int64 names of the sessions that each user was lately in, newest first, 0 where none."""
        return self.table.get(rows)[:, LINK:]

    def last_items(self, rows: Tensor, place: Tensor) -> Tensor:
        """[R] int64 the `place` of each user's last item, -1 where that item is gone."""
        key = self.table.get(rows)[:, ITEM]
        item = key & 0xFFFF_FFFF
        return torch.where((key >> 32) == self._items.get(item), place[item], -1) if len(rows) else key

    def count(self, row: int) -> int:
        """Sessions that a user has had."""
        return int(self.table.data[row, ORDINAL])

    def last_time_ms(self, rows: Tensor) -> Tensor:
        """[R] int64 time of each user's last event."""
        return self.table.get(rows)[:, TIME]
