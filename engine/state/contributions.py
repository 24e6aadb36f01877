"""How much one user may add to the decayed popularity of one item, so that nobody makes an item popular alone.

An event counts in full until its user has added `most` times its weight to the item, as that has decayed by now; then
it adds only as much as has decayed meanwhile. The bound holds at any moment under each half-life, whatever times the
events bear and in whatever sessions they are.

The state can't remember every pair of a user and an item. Most pairs come once: so a pair is remembered from its second
event on, which is known by the user's ring or by the item's. Where there are too many pairs, the ones that have added
least by now make room, and nearly nothing is lost with them.

Shapes: E events, R pairs remembered, H half-lives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import EventsConfig, StateConfig
from engine.state.contribution_kernels import (
    FREE,
    PAIR,
    ROWS,
    count_contributions,
    fill_keys,
    find_pairs,
    least_first,
    pair_keys,
    previous_of,
)
from engine.state.graph import Graph
from engine.state.kernels import Doubles, Longs, insert_keys, remove_keys
from engine.state.popularity import half_lives_ms
from engine.state.table import Table, reserve

_EVICTED_SHARE = 64
_COLUMNS = 4


class Contributions:
    """What users have added to items that they come back to.

    Args:
        most: how many times the weight of an event its user may have added to the item.
        limit: pairs that are remembered.
        kind_weight: of each kind of event, in popularity.

    Attributes:
        table: [limit, 4] int64 per pair: its key and 1 + the user's row << 32 | the item's row, both 0 in a free row;
            1 + the offset of its last event; the clock then, in ms.
        sums: [limit, H] float64 what the user had added to the item under each half-life, as of that time.
    """

    def __init__(
        self, most: float, limit: int, half_lives_s: Sequence[float], kind_weight: NDArray[np.float64]
    ) -> None:
        self.limit = limit
        self.table = Table(limit, (_COLUMNS,), dtype=torch.int64)
        self.sums = Table(limit, (len(half_lives_s),), dtype=torch.float64)
        self._most = most
        self._half_lives_ms = half_lives_ms(half_lives_s)
        self._kind_weight = kind_weight
        self._free = reserve(limit, (), torch.int64).numpy()  # the first `_used[FREE]` are, the next to be used last
        self._used = np.zeros(2, np.int64)
        self._slot = self._empty_slots()

    @classmethod
    def of(cls, config: StateConfig, events: EventsConfig) -> Contributions:
        """Of the events of one partition."""
        kind_weight = np.array(list(events.kinds.values()), dtype=np.float64)
        return cls(config.user_item_weight, config.repeated_pairs, config.half_lives_s, kind_weight)

    def __len__(self) -> int:
        return int(self._used[ROWS] - self._used[FREE])

    @property
    def rows(self) -> int:
        """Rows ever used: all that are in use lie below."""
        return int(self._used[ROWS])

    def count(
        self,
        graph: Graph,
        user: Longs,
        item: Longs,
        time_ms: Longs,
        counted_ms: Longs,
        kind: NDArray[np.int8],
        offset: Longs,
        now_ms: int,
    ) -> Doubles:
        """[E, H] the weight with which each event counts under each half-life; oldest first.

        Args:
            graph: its rings, into which these events are not inserted yet.
            counted_ms: times that the events have in popularity, see `Clock`.
            now_ms: the clock before the first of them.
        """
        amounts = np.empty((len(user), len(self._half_lives_ms)))
        clock_ms = np.maximum(np.maximum.accumulate(counted_ms), now_ms)
        before_user, before_item = previous_of(user), previous_of(item)
        events = (user, item, time_ms, counted_ms, clock_ms, kind, offset, before_user, before_item)
        first = 0
        while True:
            self._tell_copy(user[first:], item[first:])
            first = count_contributions(
                graph.user_items.arrays(), graph.item_users.arrays(),
                (self.table.array, self.sums.array, self._slot, self._free, self._used),
                self._half_lives_ms, self._kind_weight, self._most, events, first, amounts,
            )  # fmt: skip
            if first == len(user):
                return amounts
            self._make_room(int(clock_ms[first]))

    def forget_users(self, users: Longs) -> None:
        """Leaves no trace of these rows of users, which will stand for others."""
        self._remove(np.isin((self.table.array[: self.rows, PAIR] >> 32) - 1, users))

    def forget_items(self, items: Longs) -> None:
        """Leaves no trace of these rows of items, whose counts are gone, too."""
        self._remove(np.isin(self.table.array[: self.rows, PAIR] & 0xFFFF_FFFF, items))

    def items_of(self, user: int) -> Longs:
        """[n] rows of the items of the pairs that a user is in."""
        pairs = self.table.array[: self.rows, PAIR]
        return pairs[(pairs >> 32) == user + 1] & 0xFFFF_FFFF

    def restore(self, rows: int) -> None:
        """Takes over the first `rows` of the tables, which were filled from a snapshot."""
        used = self.table.array[:rows, PAIR] != 0
        free = np.flatnonzero(~used)
        self._free[: len(free)] = free
        self._used[:] = rows, len(free)
        self._slot = self._empty_slots()
        there = np.flatnonzero(used)
        keys = np.empty((len(there), 2), np.int64)
        fill_keys(self.table.array[there, PAIR], keys)
        insert_keys(keys, there, self._slot, self.table.array)

    def _empty_slots(self) -> NDArray[np.int32]:
        """1 + the row of each pair by its key, 0 where empty; at most half full."""
        return reserve(1 << max(4, (2 * self.limit - 1).bit_length()), (), torch.int32).numpy()

    def _tell_copy(self, user: Longs, item: Longs) -> None:
        """Notes the rows that these pairs have, and the rows that they may get."""
        if self.table.copying is None and self.sums.copying is None:
            return
        rows = np.empty(len(user), np.int64)
        find_pairs(self.table.array, self._slot, pair_keys(user, item), rows)
        free = self._free[: self._used[FREE]]
        self._note(np.unique(np.concatenate([rows[rows >= 0], free[-len(user) :]])))

    def _make_room(self, now_ms: int) -> None:
        """Forgets the pairs that have added least by now, and of equal ones the longest idle."""
        table, sums = self.table.array[: self.rows], self.sums.array[: self.rows]  # Here no row is free.
        order = least_first(table, sums, self._half_lives_ms[0], now_ms)
        gone = np.zeros(self.rows, np.bool_)
        gone[order[: max(1, self.limit // _EVICTED_SHARE)]] = True
        self._remove(gone)

    def _remove(self, gone: NDArray[np.bool_]) -> None:
        """Frees the rows [rows] that are in use among these."""
        rows = np.flatnonzero(gone & (self.table.array[: self.rows, PAIR] != 0))
        if len(rows) == 0:
            return
        self._note(rows)
        remove_keys(rows, self._slot, self.table.array)
        self.table.array[rows], self.sums.array[rows] = 0, 0.0
        # In order, so that a restored table gives out its rows as this one does.
        free = np.sort(np.concatenate([self._free[: self._used[FREE]], rows]))
        self._free[: len(free)] = free
        self._used[FREE] = len(free)

    def _note(self, rows: Longs) -> None:
        for table in (self.table, self.sums):
            table.note(torch.from_numpy(rows))
