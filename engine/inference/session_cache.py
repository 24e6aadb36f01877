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

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import metrics
from engine.inference.session_forward import SessionForward
from engine.model.sequence import SequenceEncoder
from engine.state.ring import Neighbors
from engine.state.table import reserve

_MOST_NEW = 8  # new events beyond which computing a session anew is no dearer
_UNKNOWN = -2  # no event's print, which is odd, nor that of no event, which is 0


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
    def encoded(
        self, users: Sequence[int], history: Neighbors, table: Tensor, goal: Tensor | int | None = None
    ) -> Tensor:
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
            return self._encoder.query(self._state[slots], goal)
        # A user may be asked for twice, or more of them than there are places.
        at = {user: place for place, user in enumerate(users)}
        parts = [distinct[first : first + self.size] for first in range(0, len(distinct), self.size)]
        states: dict[int, Tensor] = {}
        for part in parts:
            slots = self._slots(part)
            self._follow(slots, history.select(torch.tensor([at[user] for user in part])), table)
            states.update(zip(part, self._state[slots], strict=True))
        return self._encoder.query(torch.stack([states[user] for user in users]), goal)

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
        length = self._prints.shape[1]
        prints = _prints(history.last(length + self._most_new))
        prints = F.pad(prints, (length + self._most_new - prints.shape[1], 0))
        # [B, 1 + most new] whether the events seen are all that there are but the newest 0, 1, ...
        same = (prints.unfold(1, length, 1).flip(1) == self._prints[slots, None]).all(dim=2)
        new = torch.where(same.any(dim=1), same.to(torch.int8).argmax(dim=1), -1)
        self._prints[slots] = prints[:, -length:]
        appended, anew = (new > 0).nonzero().squeeze(1), (new < 0).nonzero().squeeze(1)
        if len(appended) == len(slots):  # as most often: nothing to pick
            self._append(slots, history, new, table)
        elif len(appended):
            self._append(slots[appended], history.select(appended), new[appended], table)
        if len(anew):
            self._compute(slots[anew], history.select(anew), table)
        metrics.SESSIONS_ENCODED.labels("appended").inc(len(appended))
        metrics.SESSIONS_ENCODED.labels("anew").inc(len(anew))
        metrics.SESSIONS_ENCODED.labels("unchanged").inc(len(new) - len(appended) - len(anew))

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


def _prints(events: Neighbors) -> Tensor:
    """[B, L] int64 a hash of each event, odd; 0 where there is none."""
    mixed = torch.zeros_like(events.row)
    for column in (events.row, events.time_ms, events.kind, events.session.to(torch.int64)):
        mixed = (mixed ^ column) * 0x2545F4914F6CDD1D
        mixed = mixed ^ (mixed >> 29)
    return torch.where(events.mask, mixed | 1, 0)
