"""One moment of the state as a list reads it, whoever keeps the state: the engine, or a training that walks the log.

Shapes: N items.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.features.live import Live, Popular, Rings
from engine.state.popularity import TopItems
from engine.state.state import State

Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Moment(Protocol):
    """What lists read, all of it from one moment.

    Attributes:
        popularity: under the first half-life; items that may not be shown are hidden from its top.
        history: events kept of a user at most.
        clock_ms: event time of the newest event.
        items: N.
        settled: whether `popularity` hides just what may not be shown now.
    """

    @property
    def popularity(self) -> TopItems: ...
    @property
    def history(self) -> int: ...
    @property
    def clock_ms(self) -> int: ...
    @property
    def items(self) -> int: ...
    @property
    def settled(self) -> bool: ...

    def may(self, rows: Longs) -> Flags:
        """Whether items of `rows`, of any shape, may be shown now."""

    def live(self) -> Live:
        """All of it, as compiled code reads it. It holds for as long as nothing is folded."""


class Now:
    """The engine's state as it is; a `Moment`.

    Args:
        now_ms: wall clock that availability is judged by.
    """

    def __init__(self, state: State, now_ms: int) -> None:
        self.state, self.now_ms = state, now_ms
        self.popularity = state.popularity
        self.history = state.graph.user_items.size
        self.clock_ms = state.newest_ms
        self.items = len(state.items)
        self.settled = state.availability.settled(now_ms)

    def may(self, rows: Longs) -> Flags:
        """See `Moment`."""
        return self.state.availability.at(rows, self.now_ms)

    def live(self) -> Live:
        """See `Moment`."""
        state, popularity = self.state, self.popularity
        popular = Popular(popularity.top(), popularity.score, popularity.total, state.counts())
        return Live(Rings.of(state.graph), state.availability.shown(self.now_ms), popular, state.catalog.group)
