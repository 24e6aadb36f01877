"""The latest query of each session that is asked for, kept until an event changes what it is made from.

A query is as of its events: the item embeddings that it reads are those of the moment at which it was computed. So as
long as a history is the same, so is its query, and nothing is encoded. What tells is a hash of the events themselves,
whatever changed them: a new one, an item or a user that is gone, a session that was linked. Where two users share a
place, whoever was asked for last has it.

Shapes: B sessions asked for, L events of each, d width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import metrics
from engine.inference.session_cache import SessionCache
from engine.kernel_cache import record
from engine.state.kernels import compiled
from engine.state.ring import History, Neighbors
from engine.state.table import reserve

_ANY = -1  # a goal that is none

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


@record("i8[::1]", "f4[:,::1]")
class Kept(NamedTuple):
    """The queries [d] that are kept, by place, each with the print of the history that it was made from; 0: none is."""

    print: Longs
    query: Floats


class QueryCache:
    """Queries of one model by user row.

    Args:
        sessions: what encodes those that are not kept.
        size: queries kept; 0: none.
        reach: latest events that a query depends on; one more tells whether the first of them starts a session.
        dim: d.
    """

    def __init__(self, sessions: SessionCache, size: int, reach: int, dim: int) -> None:
        self._sessions = sessions
        self._size = size
        self._events = reach + 1
        self._kept = Kept(reserve(size, (), torch.int64).numpy(), reserve(size, (dim,), torch.float32).numpy())

    def encoded(self, users: Longs, history: History, table: Tensor, goal: int | None = None) -> Floats:
        """[B, d] the query of each of `users` [B]: `SequenceEncoder.latest`, as of the events.

        Args:
            history: [B, L] their latest events.
            table: [M, d] item embeddings; `history.row` points into it.
            goal: as in `SequenceEncoder.query`.
        """
        if not self._size:
            return self._sessions.encoded(users.tolist(), Neighbors.of(history), table, goal).numpy()
        prints, found, anew = _look_up(history, users, self._events, _ANY if goal is None else goal, self._kept)
        if len(anew):
            some, part = users[anew], history if len(anew) == len(users) else history.select(anew)
            encoded = self._sessions.encoded(some.tolist(), Neighbors.of(part), table, goal).numpy()
            found[anew] = encoded
            _note(some, prints[anew], encoded, self._kept)
        metrics.QUERIES_ENCODED.inc(len(anew))
        metrics.QUERIES_KEPT.inc(len(users) - len(anew))
        return found

    def forget(self, users: Tensor) -> None:
        """Nothing stays of `users` [R]: they are gone, or are not who they were."""
        self._sessions.forget(users)
        if self._size and len(users):
            slots = users.numpy() % self._size
            self._kept.print[slots] = 0
            self._kept.query[slots] = 0


@compiled("void(i8[::1], i8[::1], f4[:,:], Kept)")
def _note(users: Longs, prints: Longs, queries: Floats, kept: Kept) -> None:
    """Place by place: of two users who share one, the print and the query must be of the same."""
    for at in range(len(users)):
        slot = users[at] % len(kept.print)
        kept.print[slot] = prints[at]
        kept.query[slot] = queries[at]


@compiled("Tuple((i8[::1], f4[:,::1], i8[::1]))(History, i8[::1], i8, i8, Kept)")
def _look_up(history: History, users: Longs, events: int, goal: int, kept: Kept) -> tuple[Longs, Floats, Longs]:
    """[B] a hash of the newest `events` of each user and of the goal, never 0; [B, d] the queries that are kept for
    these; and the places of those that are not."""
    length = history.row.shape[1]
    prints, found = np.empty(len(users), np.int64), np.empty((len(users), kept.query.shape[1]), np.float32)
    anew = np.empty(len(users), np.int64)
    count = 0
    for b in range(len(users)):
        mixed = np.int64(goal)
        for j in range(max(0, length - events), length):
            if history.row[b, j] < 0:
                continue
            of_kind = (history.kind[b, j] << 32) ^ np.int64(history.session[b, j])
            for word in (history.row[b, j], history.time_ms[b, j], of_kind):
                mixed = (mixed ^ word) * np.int64(0x2545F4914F6CDD1D)
                mixed ^= mixed >> 29
        prints[b] = mixed | 1
        slot = users[b] % len(kept.print)
        found[b] = kept.query[slot]
        if kept.print[slot] != prints[b]:
            anew[count] = b
            count += 1
    return prints, found, anew[:count].copy()
