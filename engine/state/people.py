"""Users and anonymous sessions of several slices: which rows are whose.

A user whose records are not keyed by user has a row in several slices, and may be linked to anonymous sessions in any.

Shapes: B users asked for, R rows found, L links of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.state.id_table import digests
from engine.state.kernels import LINK, TIME, compiled
from engine.state.merged import Placed, Slots
from engine.state.session_users import FORGOTTEN
from engine.state.sessions import LINKS

Longs = NDArray[np.int64]


class People:
    """Reads `slices` as they are at each call.

    Args:
        stride: user rows in a slot, see `Placed`.
        max_session_users: a session that more users have named is that of strangers, and links none of them.
    """

    def __init__(self, slices: Slots, stride: int, max_session_users: int) -> None:
        self._slices = slices
        self._stride = stride
        self._max_session_users = max_session_users

    def find(self, subjects: Sequence[str]) -> Longs:
        """[B] row of each subject_key, -1 where it is unknown; of several rows that with the newest event."""
        keys = digests(subjects)
        best, newest_ms = np.full(len(keys), -1), np.zeros(len(keys), np.int64)
        for placed in self._slices.values():
            local, unknown = placed.slice.users.find_digests(keys)
            if unknown < len(keys):
                _prefer_newer(local, placed.slice.sessions.table.array, placed.first_user, best, newest_ms)
        return best

    def rows_of(self, subject: str) -> list[int]:
        """Its row in every slice that knows a subject."""
        found: list[int] = self._everywhere(digests([subject]))[1].tolist()
        return found

    def linked(self, rows: Sequence[int]) -> dict[int, list[int]]:
        """Rows of the same user in other slices, and of the anonymous sessions that any of these is linked to.

        Returns:
            By place in `rows`; users without any are left out.
        """
        if not rows:
            return {}
        if len(self._slices) == 1:
            place, same = np.arange(len(rows)), np.array(rows)
        else:
            place, same = self._everywhere(self._keys(np.array(rows)))
        links = np.zeros((len(same), LINKS), np.int64)
        for placed in self._slices.values():
            _read_links(same, placed.first_user, self._stride, placed.slice.sessions.table.array, links)
        # Every session that a user had is named; hardly any of them was anonymous at first.
        names = set(links.ravel().tolist())
        known: dict[int, list[int]] = {}
        for placed in self._slices.values():
            for name in placed.slice.anonymous.keys() & names:
                known.setdefault(name, []).append(placed.first_user + placed.slice.anonymous[name])
        if known:
            self._leave_out_strangers(known)
        if len(same) == len(rows) and not known:  # as most often
            return {}
        found: dict[int, list[int]] = {}
        for at, other in zip(place.tolist(), same.tolist(), strict=True):
            if other != rows[at]:
                found.setdefault(at, []).append(other)
        for one in np.flatnonzero(np.isin(links, list(known)).any(axis=1)).tolist():
            at = int(place[one])
            for name in links[one].tolist():
                for anonymous in known.get(name, ()):
                    if anonymous != rows[at]:
                        found.setdefault(at, []).append(anonymous)
        return {at: list(dict.fromkeys(more)) for at, more in found.items()}  # several links may lead to one session

    def home_of(self, row: int) -> tuple[int, Placed, int]:
        """Partition, slice and row in the slice of a row."""
        slot = row // self._stride
        partition, placed = next((at, placed) for at, placed in self._slices.items() if placed.slot == slot)
        return partition, placed, row - placed.first_user

    def _leave_out_strangers(self, known: dict[int, list[int]]) -> None:
        """Takes those sessions out of `known`, by name, that too many users have named in all slices together."""
        names = np.array([*known])
        users = np.concatenate([placed.slice.session_users.users_of(names) for placed in self._slices.values()], axis=1)
        for name, its_users in zip(names.tolist(), users.tolist(), strict=True):
            named_by = len({*its_users} - {0, FORGOTTEN}) + its_users.count(FORGOTTEN)
            if named_by > self._max_session_users:
                del known[name]

    def _everywhere(self, keys: Longs) -> tuple[Longs, Longs]:
        """[R] places in `keys` [B, 2], rising, and [R] rows of who has it: one for each slice that knows one."""
        rows = np.full((len(keys), len(self._slices)), -1)
        for at, placed in enumerate(self._slices.values()):
            local, unknown = placed.slice.users.find_digests(keys)
            if unknown < len(keys):
                rows[:, at] = np.where(local >= 0, local + placed.first_user, -1)
        place, slot = np.nonzero(rows >= 0)
        return place, rows[place, slot]

    def _keys(self, rows: Longs) -> Longs:
        """[B, 2] the digests that these users are known by."""
        keys = np.zeros((len(rows), 2), np.int64)
        for placed in self._slices.values():
            placed.slice.users.read_digests(rows, placed.first_user, keys)
        return keys


@compiled("void(i8[::1], i8[:,::1], i8, i8[::1], i8[::1])")
def _prefer_newer(local: Longs, sessions: Longs, first_user: int, best: Longs, newest_ms: Longs) -> None:
    """Takes a slice's rows `local` [B], -1 where it knows none, for `best` where they have the newest event so far."""
    for b in range(len(local)):
        if local[b] < 0:
            continue
        last_ms = sessions[local[b], TIME]
        # Where times are equal, the first partition's: the rows themselves depend on the order of reading.
        if best[b] < 0 or last_ms > newest_ms[b]:
            best[b] = local[b] + first_user
            newest_ms[b] = last_ms


@compiled("void(i8[::1], i8, i8, i8[:,::1], i8[:,::1])")
def _read_links(rows: Longs, first_user: int, stride: int, sessions: Longs, links: Longs) -> None:
    """Fills `links` [R, L] for those rows that are of this slice."""
    for r in range(len(rows)):
        local = rows[r] - first_user
        if local < 0 or local >= stride:
            continue
        for at in range(links.shape[1]):
            links[r, at] = sessions[local, LINK + at]
