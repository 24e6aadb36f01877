"""Keys and values of the sessions that are asked for, so that a new event costs one new position.

What is kept of a session follows lazily: when it is asked for, its history is compared with the events that the cache
has seen of it, and the positions that came since are computed. One that nobody asks for costs nothing. A position's
item embedding is read once, when it is computed; a session that was evicted, or whose past has changed otherwise than
by a few new events, is computed from its history again.

Shapes: B sessions asked for, L events of each, n of them new, R events that a query depends on, d width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import metrics
from engine.inference.session_anew import compute_anew
from engine.inference.session_forward import SessionForward
from engine.model.sequence import SequenceEncoder
from engine.state.kernels import compiled
from engine.state.ring import Neighbors
from engine.state.table import reserve

_MOST_NEW = 8  # new events beyond which computing a session anew is no dearer
_UNKNOWN = -2  # no event's print, which is odd, nor that of no event, which is 0
_APPENDED, _ANEW, _UNCHANGED = map(metrics.SESSIONS_ENCODED.labels, ("appended", "anew", "unchanged"))

Longs = NDArray[np.int64]


class SessionCache:
    """The latest sessions encoded by one model, the longest not asked for evicted first.

    Args:
        size: sessions kept; 0: each is computed from its history whenever it is asked for.
        history: events that a history may hold. A model whose queries depend on all of them or more is never cached:
            what a ring has lost can't be told from what it never had.
    """

    def __init__(self, encoder: SequenceEncoder, size: int, history: int) -> None:
        self._encoder = encoder
        self._forward = SessionForward.of(encoder)
        self._most_new = min(_MOST_NEW, history - encoder.reach)
        self.size = size if self._most_new >= 1 else 0
        blocks, dim = len(encoder.blocks), encoder.out.out_features
        self._room = encoder.window - 1 + self._most_new  # positions kept of a session, in a ring
        if self.size:
            self._kept = reserve(size * blocks * self._room, (2 * dim,), torch.float32)
            self._prints = reserve(size, (encoder.reach + 1,), torch.int64)
            self._count = reserve(size, (), torch.int64)  # positions computed; the newest is at (count - 1) % room
            self._state = reserve(size, (dim,), torch.float32)
        self._slot: OrderedDict[int, int] = OrderedDict()  # by user, the longest not asked for first
        self._free = list(range(self.size))

    def __len__(self) -> int:
        return len(self._slot)

    @torch.inference_mode()
    def encoded(self, users: Sequence[int], history: Neighbors, table: Tensor, goal: int | None = None) -> Tensor:
        """[B, d] the query of each of `users`: `SequenceEncoder.latest`, as of the events.

        Args:
            history: [B, L] their latest events.
            table: [M, d] item embeddings; `history.row` points into it.
            goal: as in `SequenceEncoder.query`.
        """
        if not self.size:
            return self._encoder.latest(table, history, goal)
        distinct = list(dict.fromkeys(users))
        if len(distinct) == len(users) <= self.size:
            slots = self._slots(users)
            self._follow(slots, history, table)
            return self._query(self._state.numpy()[slots.numpy()], goal)
        # A user may be asked for twice, or more of them than there are places.
        at = {user: place for place, user in enumerate(users)}
        parts = [distinct[first : first + self.size] for first in range(0, len(distinct), self.size)]
        states: dict[int, NDArray[np.float32]] = {}
        for part in parts:
            slots = self._slots(part)
            self._follow(slots, history.select(torch.tensor([at[user] for user in part])), table)
            states.update(zip(part, self._state.numpy()[slots.numpy()], strict=True))
        return self._query(np.stack([states[user] for user in users]), goal)

    def forget(self, users: Tensor) -> None:
        """Nothing stays of `users` [R]: they are gone, or are not who they were."""
        if not self._slot:
            return
        for user in users.tolist():
            slot = self._slot.pop(user, None)
            if slot is not None:
                self._free.append(slot)

    def _slots(self, users: Sequence[int]) -> Tensor:
        """[B] the slots of distinct `users`, at most as many as there are; what lies in a new one is unknown."""
        for user in users:
            if user in self._slot:
                self._slot.move_to_end(user)
        for user in users:
            if user in self._slot:
                continue
            if not self._free:
                self._free.append(self._slot.popitem(last=False)[1])
                metrics.SESSIONS_EVICTED.inc()
            self._slot[user] = slot = self._free.pop()
            self._prints[slot] = _UNKNOWN
        metrics.SESSIONS_CACHED.set(len(self._slot))
        return torch.tensor([self._slot[user] for user in users])

    def _follow(self, slots: Tensor, history: Neighbors, table: Tensor) -> None:
        """Brings what is kept at `slots` [B] up to date with `history` [B, L]."""
        row, time_ms, kind, _, session = history.arrays()
        new = np.empty(len(slots), np.int64)
        _match(row, time_ms, kind, session, slots.numpy(), self._prints.numpy(), self._most_new, new)
        appended, anew = np.flatnonzero(new > 0), np.flatnonzero(new < 0)
        if len(appended) == len(slots):  # as most often: nothing to pick
            self._append(slots, history, torch.from_numpy(new), table)
        elif len(appended):
            at = torch.from_numpy(appended)
            self._append(slots[at], history.select(at), torch.from_numpy(new[appended]), table)
        if len(anew):
            at = torch.from_numpy(anew)
            self._compute(slots[at], history.select(at), table)
        _APPENDED.inc(len(appended))
        _ANEW.inc(len(anew))
        _UNCHANGED.inc(len(new) - len(appended) - len(anew))

    def _query(self, states: NDArray[np.float32], goal: int | None) -> Tensor:
        if self._forward is None:
            return self._encoder.query(torch.from_numpy(states), goal)
        return torch.from_numpy(self._forward.query(states, goal))

    def _append(self, slots: Tensor, history: Neighbors, new: Tensor, table: Tensor) -> None:
        """Computes the last `new` [B] positions of each."""
        most = int(new.max())
        events = history.last(self._encoder.window - 1 + most)
        self._count[slots] += new
        count = self._count[slots]
        if self._forward is not None:
            self._forward.append(
                events, table, slots.numpy(), new.numpy(), count.numpy(), self._kept, self._room, self._state
            )
            return
        back = torch.arange(events.row.shape[1] - 1, -1, -1)  # [L]
        # Where another session has more new events, some of this one are computed along that are kept already.
        written = back[-most:] < new[:, None]  # [B, n]

        def recall(block: int, own: Tensor) -> Tensor:
            place = self._places(slots, block, count, back)
            self._kept[place[:, -most:][written]] = own[written]
            return self._kept.index_select(0, place.view(-1)).view(*place.shape, -1)

        self._state[slots] = self._encoder.newest(table, events, most, recall)

    def _compute(self, slots: Tensor, history: Neighbors, table: Tensor) -> None:
        """Computes all positions that a query depends on."""
        events = history.last(self._encoder.reach + 1)
        if self._forward is not None:
            self._count[slots] = self._room
            compute_anew(self._forward, events, table, slots.numpy(), self._kept, self._room, self._state)
            return
        kept = min(self._room, events.row.shape[1])
        self._count[slots] = count = torch.full_like(slots, self._room)
        back = torch.arange(kept - 1, -1, -1)

        def recall(block: int, own: Tensor) -> Tensor:
            self._kept[self._places(slots, block, count, back)] = own[:, -kept:]
            return own

        self._state[slots] = self._encoder.newest(table, events, events.row.shape[1], recall)

    def _places(self, slots: Tensor, block: int, count: Tensor, back: Tensor) -> Tensor:
        """[B, L] where the positions lie that are `back` [L] from the newest of `count` [B]."""
        ring = (slots * len(self._encoder.blocks) + block) * self._room
        return ring[:, None] + (count[:, None] - 1 - back) % self._room


@compiled("i8(i8, i8, i8, i8)")
def _print(row: int, time_ms: int, kind: int, session: int) -> Any:
    """A hash of an event, odd; 0 where there is none."""
    if row < 0:
        return 0
    mixed = np.int64(0)
    for word in (row, time_ms, kind, session):
        mixed = (mixed ^ word) * np.int64(0x2545F4914F6CDD1D)
        mixed ^= mixed >> 29
    return mixed | 1


@compiled("void(i8[:,:], i8[:,:], i8[:,:], i4[:,:], i8[::1], i8[:,::1], i8, i8[::1])")
def _match(
    row: Longs,
    time_ms: Longs,
    kind: Longs,
    session: NDArray[np.int32],
    slots: Longs,
    prints: Longs,
    most_new: int,
    new: Longs,
) -> None:
    """Finds how many events of each history [B, L] are new, and notes the latest.

    Args:
        slots: [B] distinct.
        prints: [slots, R] of the R latest events when each was last looked at; becomes those of now.
        new: [B] gets the least number of latest events without which the history is what it was; -1 where no number up
            to `most_new` is.
    """
    length, known = row.shape[1], prints.shape[1]
    latest = np.empty(known + most_new, np.int64)
    for b in range(len(slots)):
        for at in range(len(latest)):
            j = length - len(latest) + at
            latest[at] = _print(row[b, j], time_ms[b, j], kind[b, j], int(session[b, j])) if j >= 0 else 0
        before = prints[slots[b]]
        new[b] = -1
        for more in range(most_new + 1):
            first = most_new - more
            same = True
            for at in range(known - 1, -1, -1):
                if latest[first + at] != before[at]:
                    same = False
                    break
            if same:
                new[b] = more
                break
        before[:] = latest[most_new:]
