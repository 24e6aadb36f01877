"""Cuts every user's events into sessions, in log order.

Shapes: U users, E events in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_UNNAMED = -1


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
    """The open session of every user: a new one starts where the name changes, or unnamed events pause too long."""

    def __init__(self, gap_s: float, *, device: torch.device | str = "cpu") -> None:
        self._gap_ms = int(gap_s * 1000)
        self.ordinal = torch.zeros(0, dtype=torch.int32, device=device)  # [U] sessions so far
        self.name = torch.zeros(
            0, dtype=torch.int64, device=device
        )  # [U] hash of the open one, _UNNAMED without a name
        self.last_item = torch.zeros(0, dtype=torch.int64, device=device)  # [U]
        self.last_time_ms = torch.zeros(0, dtype=torch.int64, device=device)  # [U]

    def grow(self, users: int) -> None:
        """Makes room for rows 0..users-1."""
        if users <= len(self.ordinal):
            return
        more = max(users, 2 * len(self.ordinal), 1024) - len(self.ordinal)
        for field in ("ordinal", "name", "last_item", "last_time_ms"):
            old: Tensor = getattr(self, field)
            setattr(self, field, torch.cat([old, old.new_zeros(more)]))

    def fold(self, user: Tensor, name: Tensor, item: Tensor, time_ms: Tensor) -> Sessioned:
        """Assigns E events, oldest first, to sessions; all arguments [E] int64, `name` -1 where none is given."""
        if len(user) == 0:
            return Sessioned(torch.zeros(0, dtype=torch.int32, device=user.device), user)
        user, order = user.sort(stable=True)
        name, item, time_ms = name[order], item[order], time_ms[order]
        first = torch.ones_like(user, dtype=torch.bool)  # of its user in this batch
        first[1:] = user[1:] != user[:-1]

        def before(column: Tensor, stored: Tensor) -> Tensor:
            """[E] the value at the user's event before: within the batch, or as stored."""
            return torch.where(first, stored[user], column.roll(1))

        previous_name, previous_time = before(name, self.name), before(time_ms, self.last_time_ms)
        paused = (name == _UNNAMED) & (time_ms - previous_time > self._gap_ms)
        unseen = first & (self.ordinal[user] == 0)
        starts = unseen | (name != previous_name) | paused
        previous = torch.where(starts, -1, before(item, self.last_item))

        total = starts.to(torch.int32).cumsum(0)
        start_of_user = first.nonzero().squeeze(1)  # [users in the batch]
        count = torch.diff(start_of_user, append=start_of_user.new_tensor([len(user)]))
        base = self.ordinal[user[start_of_user]] - total[start_of_user] + starts[start_of_user].to(torch.int32)
        ordinal = (total + base.repeat_interleave(count)).to(torch.int32)

        last = start_of_user + count - 1
        rows = user[last]
        self.ordinal[rows], self.name[rows] = ordinal[last], name[last]
        self.last_item[rows], self.last_time_ms[rows] = item[last], time_ms[last]

        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        return Sessioned(ordinal[inverse], previous[inverse])
