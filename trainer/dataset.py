"""Cuts the log into pieces and sessions into windows, so that nothing in a window knows what comes after it.

Shapes: E events in the log, B windows or events asked for, L events in a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from engine.state.ring import Neighbors
from trainer.data.log import Questions
from trainer.replay import EventLog


@dataclass(frozen=True)
class Windows:
    """Sessions to learn from.

    Attributes:
        last: [B] int64 position in the log of each window's last target.
        targets: [B] int64 how many events up to the last one are targets.
    """

    last: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.last)

    def select(self, index: Tensor) -> Windows:
        return Windows(self.last[index], self.targets[index])


@dataclass(frozen=True)
class SessionBatch:
    """Windows with what follows each of their events.

    Attributes:
        events: [B, L] inputs, oldest first, padded on the left.
        target: [B, L] int64 item after each input, -1 where it is none to learn from.
        target_session: [B, L] int64 session ordinal of the target.
        target_kind: [B, L] int64 kind of the target's event.
    """

    events: Neighbors
    target: Tensor
    target_session: Tensor
    target_kind: Tensor

    def trimmed(self) -> SessionBatch:
        """Without the columns on the left that are padding in every window."""
        used = self.events.mask.any(0)
        first = int(used.to(torch.int8).argmax())
        columns = (self.target, self.target_session, self.target_kind)
        return SessionBatch(self.events.last(len(used) - first), *(column[:, first:] for column in columns))


class Histories:
    """Every user's events in log order, reachable from any position of the log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._user, self._order = log.user.sort(stable=True)  # [E] by user, then by log order
        self._rank = torch.empty_like(self._order)  # [E] place of each event in that order
        self._rank[self._order] = torch.arange(len(log))

    def questions(self, first: int, last: int) -> Questions:
        """What came next in events first..last-1, asked of users with an event before, in log order.

        Events of one user, session and time are one question, since their order says nothing.
        """
        log, order = self._log, self._order
        same = torch.zeros(len(order) + 1, dtype=torch.bool)  # [E + 1] whether as the one before by user
        same[1:-1] = self._user[1:] == self._user[:-1]
        for column in (log.session, log.time_ms):
            ordered = column[order]
            same[1:-1] &= ordered[1:] == ordered[:-1]
        begin = (~same).nonzero().squeeze(1)  # of each basket, and one past the last
        cut, end = begin[:-1], begin[1:]
        start = torch.searchsorted(self._user, self._user[cut])  # of the user
        position = order[cut]
        asked = (position >= first) & (position < last) & (cut > start)
        by_log = position[asked].argsort()
        columns = (column[asked][by_log].numpy() for column in (start, cut, end))
        return Questions(order.numpy(), *columns)

    def known_to(self, questions: Questions, n: int) -> Neighbors:
        """The n events that who asks each of B questions had just before, oldest first, padded on the left."""
        rank = torch.from_numpy(questions.cut)[:, None] - torch.arange(n, 0, -1)
        return self._gather(rank, self._user[torch.from_numpy(questions.cut)][:, None])

    def targets_of(self, questions: Questions) -> Tensor:
        """[B, longest] item rows that the questions are about, -2 behind the last."""
        longest = int((questions.end - questions.cut).max(initial=1))
        rank = torch.from_numpy(questions.cut)[:, None] + torch.arange(longest)
        there = rank < torch.from_numpy(questions.end)[:, None]
        return torch.where(there, self._log.item[self._order[rank.clamp_max(len(self._order) - 1)]], -2)

    def windows(self, first: int, last: int, stride: int, generator: torch.Generator | None = None) -> Windows:
        """Windows whose targets, `stride` at most in each, are exactly the events first..last-1 of the log.

        With a generator each user's events are cut at other places in every call.
        """
        rank = self._rank[first:last].sort().values  # a user's events of the slice are neighbors here
        if len(rank) == 0:
            return Windows(rank, rank)
        user = self._user[rank]
        count = user.unique_consecutive(return_counts=True)[1]
        end = count.cumsum(0).repeat_interleave(count)  # [e] one past the user's last
        to_end = end - 1 - torch.arange(len(rank))
        shift = torch.zeros_like(count)
        if generator is not None:
            shift = torch.randint(0, stride, count.shape, generator=generator).masked_fill(count <= stride, 0)
        is_last = (to_end == 0) | (to_end % stride == shift.repeat_interleave(count))
        at = is_last.nonzero().squeeze(1)
        new_user = user[at[1:]] != user[at[:-1]]
        begin = (end - count.repeat_interleave(count))[at]  # [B] of the window's user
        previous = torch.cat([at.new_full((1,), -1), at[:-1]])
        previous = torch.where(torch.cat([new_user.new_ones(1), new_user]), begin - 1, previous)
        return Windows(self._order[rank[at]], at - previous)

    def length(self, windows: Windows, most: int) -> Tensor:
        """[B] how many inputs, at most `most`, each window has."""
        rank = self._rank[windows.last]
        return (rank - torch.searchsorted(self._user, self._log.user[windows.last])).clamp_max(most)

    def batch(self, windows: Windows, length: int) -> SessionBatch:
        """The last `length` inputs of each window and their targets."""
        rank = self._rank[windows.last, None]  # [B, 1]
        back = torch.arange(length, 0, -1)  # [L]
        events = self._gather(rank - back, self._log.user[windows.last, None])
        after = self._order[(rank - back + 1).clamp_min(0)]  # [B, L]
        is_target = events.mask & (back <= windows.targets[:, None])
        return SessionBatch(
            events,
            torch.where(is_target, self._log.item[after], -1),
            self._log.session[after].to(torch.int64),
            self._log.kind[after].to(torch.int64),
        )

    def _gather(self, rank: Tensor, user: Tensor) -> Neighbors:
        at = rank.clamp_min(0)
        known = (rank >= 0) & (self._user[at] == user)
        position = self._order[at]
        log = self._log
        return Neighbors(
            torch.where(known, log.item[position], -1),
            torch.where(known, log.time_ms[position], 0),
            torch.where(known, log.kind[position].to(torch.int64), 0),
            torch.where(known, log.value[position], 0.0),
            torch.where(known, log.session[position], 0),
        )


def cuts(events: int, pieces: int) -> list[tuple[int, int]]:
    """Cuts positions 0..events-1 into at most `pieces` runs of nearly equal length."""
    ends = [events * piece // pieces for piece in range(pieces + 1)]
    return [(first, last) for first, last in pairwise(ends) if last > first]
