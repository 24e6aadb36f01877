"""Cuts every user's events into sessions, in log order.

Shapes: U users, E events in a batch, L links.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.state.groups import Groups
from engine.state.kernels import ITEM, LINK, NAME, ORDINAL, TIME, fold_sessions
from engine.state.table import Table, put, take

UNNAMED = -1
LINKS = 4  # the latest named sessions that a user is linked to


@dataclass(frozen=True)
class Sessioned:
    """What the sessions say of a batch.

    Attributes:
        ordinal: [E] int32, counts each user's sessions from 1.
        previous: [E] int64 item of the event before in the same session, -1 at its start.
    """

    ordinal: Tensor
    previous: Tensor


class Sessions:
    """The open session of every user: a new one starts where the name changes, or unnamed events pause too long.

    Args:
        users: U, how many rows there may be.
        items: generation of each item row, as a `Ring` takes it: a last item that is gone is no previous item.

    Attributes:
        gap_ms: the longest pause between two unnamed events of a session.
        item_column: where in `table` the last item is.
        table: [U, 4 + L] int64 per user: sessions so far; name of the open one, UNNAMED without one; its last item,
            generation << 32 | row; time of its last event; the names of the last L named sessions, 0 where none.
    """

    item_column = ITEM

    def __init__(self, users: int, gap_s: float, *, items: Table) -> None:
        self.gap_ms = int(gap_s * 1000)
        self._items = items
        self.table = Table(users, (4 + LINKS,), dtype=torch.int64)

    def fold(self, user: Tensor, name: Tensor, item: Tensor, time_ms: Tensor) -> Sessioned:
        """Assigns E events, oldest first, to sessions; columns [E] int64, `name` UNNAMED where none is given."""
        if not self.table.loose:
            return self._fold_grouped(Groups.of(user), name, item, time_ms)
        found = Sessioned(torch.empty(len(user), dtype=torch.int32), torch.empty(len(user), dtype=torch.int64))
        columns = (column.numpy() for column in (user, name, item, time_ms, found.ordinal, found.previous))
        fold_sessions(self.table.array, self._items.array, self.gap_ms, UNNAMED, *columns)
        return found

    def _fold_grouped(self, user: Groups, name: Tensor, item: Tensor, time_ms: Tensor) -> Sessioned:
        """`fold` for all events at once, by tensor operations and through `Table.put`."""
        if len(user.row) == 0:
            return Sessioned(torch.zeros(0, dtype=torch.int32), item)
        name, item, time_ms = user.arranged(name), user.arranged(item), user.arranged(time_ms)
        item_key = item | (self._items.get(item).to(torch.int64) << 32)
        stored = self.table.get(user.node)  # [G, 4 + L]
        # The event before: the one in front within the batch or, for a user's first, as stored.
        first = user.last + 1 - user.count  # [G]
        name_before, key_before, time_before = (column.roll(1) for column in (name, item_key, time_ms))
        for column, at in ((name_before, NAME), (key_before, ITEM), (time_before, TIME)):
            put(column, first, stored[:, at])

        starts = (name != name_before) | ((name == UNNAMED) & (time_ms - time_before > self.gap_ms))
        unseen = stored[:, ORDINAL] == 0
        put(starts, first, take(starts, first) | unseen)
        previous = key_before & 0xFFFF_FFFF
        alive = (key_before >> 32) == self._items.get(previous)
        previous = torch.where(starts | ~alive, -1, previous)

        total = starts.to(torch.int64).cumsum(0)
        base = stored[:, ORDINAL] - take(total, first) + take(starts, first)
        ordinal = total + take(base, user.group)

        links = self._link(stored[:, LINK:], user.group, name, starts)
        news = take(torch.stack([ordinal, name, item_key, time_ms], dim=1), user.last)
        self.table.put(user.node, torch.cat([news, links], dim=1))
        return Sessioned(user.ungrouped(ordinal.to(torch.int32)), user.ungrouped(previous))

    def _link(self, links: Tensor, group: Tensor, name: Tensor, starts: Tensor) -> Tensor:
        """[G, L] the links with the names of sessions that start in this batch pushed in, newest first."""
        pushed = (starts & (name != UNNAMED)).nonzero().squeeze(1)
        if len(pushed) == 0:
            return links
        at = take(group, pushed)  # rising
        node, inverse, count = at.unique_consecutive(return_inverse=True, return_counts=True)
        # Newest first: what is pushed, in reverse, then what was there, cut at L.
        back = take(count.cumsum(0) - 1, inverse) - torch.arange(len(at))
        old = torch.arange(LINKS)[None] - count[:, None]
        moved = torch.where(old >= 0, take(links, node).gather(1, old.clamp_min(0)), 0)
        kept = (back < LINKS).nonzero().squeeze(1)
        moved[take(inverse, kept), take(back, kept)] = take(take(name, pushed), kept)
        links = links.clone()
        links[node] = moved
        return links

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
