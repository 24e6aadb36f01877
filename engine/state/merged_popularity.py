"""Decayed popularity of several slices, read as one: counts under each half-life, and the most popular items.

Shapes: R item rows, H half-lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.state.addresses import place_of
from engine.state.clock import latest_of
from engine.state.folded import Rows
from engine.state.merged import Placed
from engine.state.merged_kernels import COUNTS, Counts, counts_of_slices
from engine.state.popularity import TopItems

Longs = NDArray[np.int64]

_LEAST = 5e-324  # The smallest number above 0.


class MergedPopularity:
    """The sum over the slices of a state, in the order of their partitions.

    Args:
        slices: by partition; the state adds and removes them.
        half_lives_s: the first one orders the most popular items.
        popular: how many items the ready list holds.

    Attributes:
        top: the most popular items, by the counts under the first half-life.
        scale: doublings by which the scores of `top` are scaled down; they compare over time once it is the same.
    """

    def __init__(self, slices: Mapping[int, Placed], half_lives_s: Sequence[float], popular: int) -> None:
        self._slices = slices
        self._half_lives = len(half_lives_s)
        self.top = TopItems(popular)
        self.scale = 0
        self._of: tuple[Placed, ...] = ()  # whose counts lie at the next; they keep the tables there
        self._rooms = np.zeros((0, COUNTS), np.int64)
        self._moment: list[tuple[int, int, bytes]] = []  # at which the next were made
        self._doublings = np.zeros((0, self._half_lives), np.int64)
        self._ahead = False  # whether a slice was ahead of the clock when the scores were made

    @property
    def newest_ms(self) -> int:
        """The clock of all slices together: the latest time that events have shown, 0 before the first."""
        return latest_of((placed.slice.newest_ms, placed.slice.events_folded) for placed in self._slices.values())

    def counts_under(self, half_lives: Sequence[int], rows: Rows) -> NDArray[np.float64]:
        """[R, len(half_lives)] decayed counts of items, for half-lives by their position.

        The counts under one half-life are scaled alike, so only their ratios mean something.
        """
        return counts_of_slices(self.counts(), np.array(half_lives), rows)

    def counts(self) -> Counts:
        """Where the counts lie. It holds for as long as nothing is folded."""
        slices = tuple(self._slices.values())
        if slices != self._of:
            rooms = [(*place_of(one.slice.popularity.table.array), *place_of(one.row_of)) for one in slices]
            self._rooms, self._of = np.array(rooms, np.int64).reshape(len(slices), COUNTS), slices
            self._moment = []
        moment = [
            (one.slice.newest_ms, one.slice.events_folded, one.slice.popularity.landmarks.tobytes()) for one in slices
        ]
        if moment != self._moment:
            self._doublings, self._moment = self._doublings_now(), moment
        return Counts(self._rooms, self._half_lives, self._doublings)

    def _doublings_now(self) -> Longs:
        scale, now_ms = self.landmarks(), self.newest_ms
        doublings = np.zeros((len(self._slices), self._half_lives), np.int64)
        for at, placed in enumerate(self._slices.values()):
            counts = placed.slice.popularity
            # The single event of a slice may lie ahead of the clock of all others: it counts its weight, and no more.
            ahead = -(-max(0, placed.slice.newest_ms - now_ms) // counts.half_lives_ms)
            doublings[at] = counts.landmarks - scale - ahead
        return doublings

    def landmarks(self) -> NDArray[np.int64]:
        """[H] the scales of the counts, which are those of the slices that are not ahead of the clock."""
        now_ms = self.newest_ms
        slices = [placed.slice for placed in self._slices.values()]
        nothing = np.zeros(self._half_lives, np.int64)
        return np.max([one.popularity.landmarks for one in slices if one.newest_ms <= now_ms] or [nothing], axis=0)

    @property
    def outdated(self) -> bool:
        """Whether the clock has moved the scale of all scores, so that those of some rows alone can't be put."""
        return int(self.landmarks()[0]) != self.scale or self._ahead or self._slices_ahead()

    def update(self, rows: Rows) -> None:
        """Brings the scores of `rows` up to date, where the scores are not `outdated`."""
        if len(rows):
            distinct = np.unique(rows)
            self.top.put(distinct, self._scores(distinct))

    def update_all(self, items: int) -> None:
        """Makes the scores of all `items` rows again."""
        self.scale, self._ahead = int(self.landmarks()[0]), self._slices_ahead()
        self.top.replace(self._scores(np.arange(items)))

    def _scores(self, rows: Rows) -> NDArray[np.float64]:
        """[R] what orders the most popular items: an item whose events count nothing any more goes before one that has
        had none."""
        score = self.counts_under([0], rows)[:, 0]
        nothing = np.flatnonzero(score == 0)
        for placed in self._slices.values() if len(nothing) else ():
            score[nothing[placed.row_of[rows[nothing]] > 0]] = _LEAST
        return score

    def _slices_ahead(self) -> bool:
        now_ms = self.newest_ms
        return any(placed.slice.newest_ms > now_ms for placed in self._slices.values())
