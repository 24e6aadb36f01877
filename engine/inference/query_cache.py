"""The latest query of each session that is asked for, kept until an event changes what it is made from.

A query is as of its events: the item embeddings that it reads are those of the moment at which it was computed. So as
long as a history is the same, so is its query, and nothing is encoded. What tells is a hash of the events themselves,
whatever changed them: a new one, an item or a user that is gone, a session that was linked. Where two users share a
place, whoever was asked for last has it.

Shapes: B sessions asked for, L events of each, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import metrics
from engine.inference.session_cache import SessionCache
from engine.state.kernels import compiled
from engine.state.ring import Neighbors
from engine.state.table import reserve

_ANY = -1  # a goal that is none

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


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
        self._query = reserve(size, (dim,), torch.float32)
        self._print = reserve(size, (), torch.int64)  # of the history that each is of; 0: none

    @torch.inference_mode()
    def encoded(self, users: Sequence[int], history: Neighbors, table: Tensor, goal: int | None = None) -> Tensor:
        """[B, d] the query of each of `users`: `SequenceEncoder.latest`, as of the events.

        Args:
            history: [B, L] their latest events.
            table: [M, d] item embeddings; `history.row` points into it.
            goal: as in `SequenceEncoder.query`.
        """
        if not self._size:
            return self._sessions.encoded(users, history, table, goal)
        events = history.last(self._events)
        row, time_ms, kind, session = (
            column.numpy() for column in (events.row, events.time_ms, events.kind, events.session)
        )
        prints = _prints(row, time_ms, kind, session, _ANY if goal is None else goal)
        slots = np.asarray(users, np.int64) % self._size
        kept = self._query.numpy()
        anew = np.flatnonzero(self._print.numpy()[slots] != prints)
        found: Floats = kept[slots]
        if len(anew):
            rows = [users[at] for at in anew.tolist()]
            part = history if len(anew) == len(users) else history.select(torch.from_numpy(anew))
            encoded = self._sessions.encoded(rows, part, table, goal).numpy()
            found[anew] = encoded
            _note(slots[anew], prints[anew], encoded, self._print.numpy(), kept)
        metrics.QUERIES_ENCODED.inc(len(anew))
        metrics.QUERIES_KEPT.inc(len(users) - len(anew))
        return torch.from_numpy(found)

    def forget(self, users: Tensor) -> None:
        """Nothing stays of `users` [R]: they are gone, or are not who they were."""
        self._sessions.forget(users)
        if self._size and len(users):
            slots = users % self._size
            self._print[slots] = 0
            self._query[slots] = 0


@compiled("void(i8[::1], i8[::1], f4[:,:], i8[::1], f4[:,::1])")
def _note(slots: Longs, prints: Longs, queries: Floats, print_: Longs, kept: Floats) -> None:
    """Place by place: of two users who share one, the print and the query must be of the same."""
    for at in range(len(slots)):
        print_[slots[at]] = prints[at]
        kept[slots[at]] = queries[at]


@compiled("i8[::1](i8[:,:], i8[:,:], i8[:,:], i4[:,:], i8)")
def _prints(row: Longs, time_ms: Longs, kind: Longs, session: NDArray[np.int32], goal: int) -> Longs:
    """[B] a hash of the events [B, L] that there are, and of the goal; never 0."""
    found = np.empty(len(row), np.int64)
    for b in range(len(row)):
        mixed = np.int64(goal)
        for j in range(row.shape[1]):
            if row[b, j] < 0:
                continue
            for word in (row[b, j], time_ms[b, j], (kind[b, j] << 32) ^ np.int64(session[b, j])):
                mixed = (mixed ^ word) * np.int64(0x2545F4914F6CDD1D)
                mixed ^= mixed >> 29
        found[b] = mixed | 1
    return found
