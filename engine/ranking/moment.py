"""One moment of the state as a list reads it, whoever keeps the state: the engine, or a training that walks the log.

Shapes: N items, R rows, H half-lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.state.graph import LiveGraph
from engine.state.popularity import TopItems
from engine.state.state import State

Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Moment(Protocol):
    """What lists read, all of it from one moment.

    Attributes:
        graph: the rings.
        popularity: under the first half-life; items that may not be shown are hidden from its top.
        half_lives: H.
        group: [N or more] what stands for an item's categories; see `Catalog`.
        clock_ms: event time of the newest event.
        items: N.
        settled: whether `popularity` hides just what may not be shown now.
    """

    @property
    def graph(self) -> LiveGraph: ...
    @property
    def popularity(self) -> TopItems: ...
    @property
    def half_lives(self) -> int: ...
    @property
    def group(self) -> Longs: ...
    @property
    def clock_ms(self) -> int: ...
    @property
    def items(self) -> int: ...
    @property
    def settled(self) -> bool: ...

    def may(self, rows: Longs) -> Flags:
        """Whether items of `rows`, of any shape, may be shown now."""

    def counts_under(self, half_lives: Sequence[int], rows: Longs) -> NDArray[np.float64]:
        """[R, h] decayed counts of items under some of the half-lives; those of one half-life are scaled alike."""


class Now:
    """The engine's state as it is; a `Moment`.

    Args:
        now_ms: wall clock that availability is judged by.
    """

    def __init__(self, state: State, now_ms: int) -> None:
        self.state, self.now_ms = state, now_ms
        self.graph: LiveGraph = state.graph
        self.popularity = state.popularity
        self.half_lives = len(state.half_lives_s)
        self.group = state.catalog.group
        self.clock_ms = state.newest_ms
        self.items = len(state.items)
        self.settled = state.availability.settled(now_ms)

    def may(self, rows: Longs) -> Flags:
        """See `Moment`."""
        return self.state.availability.at(rows, self.now_ms)

    def counts_under(self, half_lives: Sequence[int], rows: Longs) -> NDArray[np.float64]:
        """See `Moment`."""
        return self.state.decayed_counts_under(half_lives, rows)
