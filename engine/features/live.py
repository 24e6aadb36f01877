"""Records through which compiled code reads the users who ask, the state, and a model's tables.

Shapes: B users, K remembered events, N items, M rows of a table, P slices, H half-lives, d width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernel_cache import record
from engine.state.availability import Shown
from engine.state.graph import LiveGraph
from engine.state.merged_kernels import Counts
from engine.state.ring import History

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_NOW = np.zeros(0, np.int64)


@record("i8[::1]", "i8[::1]", "i8[::1]", "i8[:,::1]", "i8[:,::1]", "i4[:,::1]")
class Askers(NamedTuple):
    """B users at one moment.

    Attributes:
        user: [B] rows, -1 where one is unknown.
        asked_ms: [B] event time at which each asks, where that is in the past: what came then or later is left out of
            the rings; empty: all ask now.
        clock_ms: [B] time of the newest event of all that is known of, of whomever.
        row, time_ms, session: [B, K] the latest events of each, oldest first, -1 and 0 where there are fewer.
    """

    user: Longs
    asked_ms: Longs
    clock_ms: Longs
    row: Longs
    time_ms: Longs
    session: Ints

    @classmethod
    def of(cls, users: Longs, history: History, clock_ms: int, asked_ms: Longs | None = None) -> Askers:
        """Users who ask now, or who asked at other times."""
        row, time_ms, _, _, session = map(np.ascontiguousarray, history)
        if asked_ms is None:
            return cls(users, _NOW, np.full(len(users), clock_ms), row, time_ms, session)
        asked_ms = np.ascontiguousarray(asked_ms)
        return cls(users, asked_ms, asked_ms, row, time_ms, session)


@record("i8[:,::1]", "i8", "i8[:,::1]", "i8", "i8[:,::1]", "i8")
class Rings(NamedTuple):
    """Where the edges of a `LiveGraph` lie, as `latest_of_slices` takes it, and how many are kept of each node."""

    user_items: Longs
    history: int
    item_users: Longs
    users: int
    item_next: Longs
    next: int

    @classmethod
    def of(cls, graph: LiveGraph) -> Rings:
        """They hold for as long as nothing else is done."""
        items, users, following = graph.user_items, graph.item_users, graph.item_next
        return cls(items.rooms(), items.size, users.rooms(), users.size, following.rooms(), following.size)


@record("i8[::1]", "f8[::1]", "f8", "Counts")
class Popular(NamedTuple):
    """How popular items are.

    Attributes:
        top: the most popular rows that are not hidden, best first.
        score: [N or more] decayed counts under the first half-life.
        total: their sum.
        counts: under every half-life.
    """

    top: Longs
    score: Doubles
    total: float
    counts: Counts


@record("Rings", "Shown", "Popular", "i8[::1]")
class Live(NamedTuple):
    """All that a list reads of one moment; `group` [N or more] stands for an item's categories, see `Catalog`."""

    rings: Rings
    shown: Shown
    popular: Popular
    group: Longs


@record("f4[:,::1]", "f4[:,::1]")
class Tables(NamedTuple):
    """A model's tables of items: embeddings [M, d], and habits [M, HABITS], see `Recommender.habit`."""

    item: Floats
    habit: Floats
