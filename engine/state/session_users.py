"""How many users have named a session: where strangers share a session id, it must link none of them to its events.

The links of a user are a short ring, so they can't be counted: whoever has moved on to other sessions is missing there.
This table keeps the users of each named session apart from the rings. Only as many users are kept as it takes to know
that there are too many, and sessions of one user make room for the others.

Shapes: N sessions there may be, E links made, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from engine.state.kernels import Ints, Longs, compiled, insert_keys, remove_keys
from engine.state.nodes import Nodes
from engine.state.sessions import UNNAMED
from engine.state.table import Table, reserve

MOST_USERS = 6  # kept of each session: with its name and when it was seen, a row is a line of the processor's cache
FORGOTTEN = 1  # stands for a user who was forgotten: the count stays, and nothing says who that was
NAME, SEEN, USER = 0, 1, 2  # columns
ROWS, FREE = 0, 1  # how many rows were ever used, and how many of them are free
_EVICTED_SHARE = 64
_AT_ONCE = 16_384
_AFTER_ALL = np.int64(1) << 62  # more than any offset


class SessionUsers:
    """The users of the sessions that were named last.

    Args:
        limit: N; beyond it the sessions that no user has begun or come back to for longest make room, and the sessions
            of several users after those of one.

    Attributes:
        table: [N, 8] int64 per session: its name; 1 + the offset of the event that last linked a user to it, 0 in a
            free row; half of the digests of its first users, each once, 0 where there is none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.table = Table(limit, (USER + MOST_USERS,), dtype=torch.int64)
        self._free = reserve(limit, (), torch.int64).numpy()  # the first `_used[FREE]` are, the next to be used last
        self._used = np.zeros(2, np.int64)
        self._slot = self._empty_slots()

    @property
    def rows(self) -> int:
        """Rows ever used: all that are in use lie below."""
        return int(self._used[ROWS])

    def note(
        self, user_ids: Sequence[str], users: Nodes, user: Longs, names: Longs, previous: Longs, offset: Longs
    ) -> None:
        """Notes what events say, once they are folded; columns [E], as the fold has them.

        Args:
            user_ids: "" for the events of an anonymous session, which is no user of itself.
        """
        if "" in user_ids:
            signed_in = np.flatnonzero(np.fromiter(map(bool, user_ids), np.bool_, len(user_ids)))
            user, names, previous, offset = user[signed_in], names[signed_in], previous[signed_in], offset[signed_in]
        self.fold(names, user, previous, offset, users.digests)

    def fold(self, names: Longs, user: Longs, previous: Longs, offset: Longs, digests: Longs) -> None:
        """Notes that users were linked to sessions [E], oldest first.

        Args:
            user: [E] rows of `digests`.
            previous: [E] only an event without one before it in its session can have made a link.
        """
        first = 0
        while True:
            if self.table.copying is not None:
                self._tell_copy(names[first:])
            first = _note_users(
                self.table.array, self._slot, self._free, self._used, UNNAMED, names, user, previous, offset, digests,
                first,
            )  # fmt: skip
            if first == len(names):
                return
            self._make_room()

    def users_of(self, names: Longs) -> Longs:
        """[R, 6] the users of sessions, FORGOTTEN among them, 0 where there is none."""
        rows = self._find(names)
        return np.where((rows >= 0)[:, None], self.table.array[np.maximum(rows, 0), USER:], 0)

    def forget(self, user: int) -> None:
        """Leaves no trace of a user but the count: a session that has had too many users stays closed.

        Args:
            user: the first half of the user's digest.
        """
        row = _next_of(self.table.array, 0, self.rows, user)
        while row < self.rows:
            self.table.note(torch.tensor([row]))
            users = self.table.array[row, USER:]
            users[users == user] = FORGOTTEN
            row = _next_of(self.table.array, row + 1, self.rows, user)

    def restore(self, rows: int) -> None:
        """Takes over the first `rows` of `table`, which were filled from a snapshot."""
        used = self.table.array[:rows, SEEN] > 0
        free = np.flatnonzero(~used)
        self._free[: len(free)] = free
        self._used[:] = rows, len(free)
        self._slot = self._empty_slots()
        for part in np.array_split(np.flatnonzero(used), max(1, rows // _AT_ONCE)):
            insert_keys(self.table.array[part, : SEEN + 1].copy(), part, self._slot, self.table.array)

    def _empty_slots(self) -> Ints:
        """1 + the row of each session by its name, 0 where empty; at most half full."""
        return reserve(1 << max(4, (2 * self.limit - 1).bit_length()), (), torch.int32).numpy()

    def _find(self, names: Longs) -> Longs:
        """[R] rows of sessions, -1 where one is unknown."""
        rows = np.empty(len(names), np.int64)
        _find_sessions(self.table.array, self._slot, names, rows)
        return rows

    def _tell_copy(self, names: Longs) -> None:
        """Notes the rows that these sessions have, and those that they may get."""
        rows, free = self._find(names), self._free[: self._used[FREE]]
        self.table.note(torch.from_numpy(np.unique(np.concatenate([rows[rows >= 0], free[-len(names) :]]))))

    def _make_room(self) -> None:
        count = max(1, self.limit // _EVICTED_SHARE)
        idle = _keep_order(self.table.array[: self.rows], self.limit)
        rows = np.sort(np.argpartition(idle, count - 1)[:count])
        self.table.note(torch.from_numpy(rows))
        remove_keys(rows, self._slot, self.table.array)
        self.table.clear(torch.from_numpy(rows))
        self._free[: len(rows)] = rows
        self._used[FREE] = len(rows)


def kept_sessions(table: NDArray[np.int64], limit: int) -> Longs:
    """[R] the rows of a `SessionUsers.table` that stay, rising, where there may be `limit` of them."""
    used = np.flatnonzero(table[:, SEEN] > 0)
    last = used[np.argsort(_keep_order(table[used], limit), kind="stable")]
    return np.sort(last[max(0, len(last) - limit) :])


def _keep_order(table: NDArray[np.int64], limit: int) -> Longs:
    """[R] the lowest makes room first.

    Ids of one user's own sessions come by the million and must not push out the few that users share. These keep half
    of the room at most: else whoever made up enough of them would leave none to count the users of new sessions in.
    """
    seen = table[:, SEEN]
    shared = np.flatnonzero(table[:, USER + 1] != 0)
    kept = shared[np.argsort(seen[shared], kind="stable")][max(0, len(shared) - limit // 2) :]
    order = seen.copy()
    order[kept] += _AFTER_ALL
    return order


@compiled("i8(i8[:,::1], i4[::1], i8)")
def _place_of(table: Longs, slot: Ints, name: int) -> int:
    """The slot where a session is, or the empty one where it would be."""
    mask = len(slot) - 1
    at = name & mask
    while slot[at] != 0 and table[slot[at] - 1, NAME] != name:
        at = (at + 1) & mask
    return at


@compiled("void(i8[:,::1], i4[::1], i8[::1], i8[::1])")
def _find_sessions(table: Longs, slot: Ints, names: Longs, rows: Longs) -> None:
    """Fills `rows` [R] with those of sessions, -1 where one is unknown."""
    for r in range(len(names)):
        rows[r] = slot[_place_of(table, slot, names[r])] - 1


@compiled("i8(i8[:,::1], i4[::1], i8[::1], i8[::1], i8, i8[::1], i8[::1], i8[::1], i8[::1], i8[:,::1], i8)")
def _note_users(
    table: Longs,
    slot: Ints,
    free: Longs,
    used: Longs,
    unnamed: int,
    names: Longs,
    user: Longs,
    previous: Longs,
    offset: Longs,
    digests: Longs,
    first: int,
) -> int:
    """Notes the users of events [E] from the `first` on; of a full session only when it was seen.

    Returns:
        The event whose session has no row and can get none; E where all have one.
    """
    for e in range(first, len(names)):
        if previous[e] >= 0 or names[e] == unnamed:
            continue
        place = _place_of(table, slot, names[e])
        row = np.int64(slot[place]) - 1
        if row < 0:
            if used[FREE] > 0:
                used[FREE] -= 1
                row = free[used[FREE]]
            elif used[ROWS] < len(table):
                row = used[ROWS]
                used[ROWS] += 1
            else:
                return e
            slot[place] = np.int32(row + 1)
            table[row, NAME] = names[e]
        table[row, SEEN] = offset[e] + 1
        whose = digests[user[e], 0]
        for at in range(USER, table.shape[1]):
            if table[row, at] == whose:
                break
            if table[row, at] == 0:
                table[row, at] = whose
                break
    return len(names)


@compiled("i8(i8[:,::1], i8, i8, i8)")
def _next_of(table: Longs, first: int, rows: int, user: int) -> int:
    """The next of the first `rows`, from `first` on, that has a user; `rows` where there is none."""
    for row in range(first, rows):
        for at in range(USER, table.shape[1]):
            if table[row, at] == user:
                return row
    return rows
