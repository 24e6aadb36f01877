"""Users and anonymous sessions of several slices: which rows are whose.

A user whose records are not keyed by user has a row in several slices, and may be linked to anonymous sessions in any.

Shapes: B users asked for, R rows found, L links of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from engine.state.id_table import digests
from engine.state.merged import Placed, Slots
from engine.state.sessions import LINKS

Longs = NDArray[np.int64]


class People:
    """Reads `slices` as they are at each call.

    Args:
        stride: user rows in a slot, see `Placed`.
    """

    def __init__(self, slices: Slots, stride: int) -> None:
        self._slices = slices
        self._stride = stride

    def find(self, subjects: Sequence[str]) -> Longs:
        """[B] row of each subject_key, -1 where it is unknown; of several rows that with the newest event."""
        keys = digests(subjects)
        best, newest_ms = np.full(len(keys), -1), np.zeros(len(keys), np.int64)
        for placed in self._slices.values():
            local = placed.slice.users.find_digests(keys)
            last_ms = placed.slice.sessions.last_time_ms(torch.from_numpy(np.maximum(local, 0))).numpy()
            # Where times are equal, the first partition's: the rows themselves depend on the order of reading.
            better = (local >= 0) & ((best < 0) | (last_ms > newest_ms))
            best[better], newest_ms[better] = local[better] + placed.first_user, last_ms[better]
        return best

    def rows_of(self, subject: str) -> list[int]:
        """Its row in every slice that knows a subject."""
        found: list[int] = self._everywhere([subject])[1].tolist()
        return found

    def linked(self, rows: Sequence[int]) -> dict[int, list[int]]:
        """Rows of the same user in other slices, and of the anonymous sessions that any of these is linked to.

        Returns:
            By place in `rows`; users without any are left out.
        """
        if not rows:
            return {}
        if len(self._slices) == 1:
            place, same = np.arange(len(rows)), np.asarray(rows)
        else:
            place, same = self._everywhere([self._subject(row) for row in rows])
        links = self._links(same)
        named = links.any(axis=1)
        if len(same) == len(rows) and not named.any():  # as most often
            return {}
        found: dict[int, list[int]] = {}
        for at, other in zip(place.tolist(), same.tolist(), strict=True):
            if other != rows[at]:
                found.setdefault(at, []).append(other)
        for one in np.flatnonzero(named).tolist():
            at = int(place[one])
            for name in links[one][links[one] != 0].tolist():
                for placed in self._slices.values():
                    anonymous = placed.slice.anonymous.get(name)
                    if anonymous is not None and placed.first_user + anonymous != rows[at]:
                        found.setdefault(at, []).append(placed.first_user + anonymous)
        return {at: list(dict.fromkeys(more)) for at, more in found.items()}  # several links may lead to one session

    def home_of(self, row: int) -> tuple[int, Placed, int]:
        """Partition, slice and row in the slice of a row."""
        slot = row // self._stride
        partition, placed = next((at, placed) for at, placed in self._slices.items() if placed.slot == slot)
        return partition, placed, row - placed.first_user

    def _links(self, rows: Longs) -> Longs:
        """[R, L] names of the sessions that each was lately in, 0 where none."""
        links = np.zeros((len(rows), LINKS), np.int64)
        for placed in self._slices.values():
            local = rows - placed.first_user
            here = (local >= 0) & (local < self._stride)
            links[here] = placed.slice.sessions.links(torch.from_numpy(local[here])).numpy()
        return links

    def _everywhere(self, subjects: Sequence[str | None]) -> tuple[Longs, Longs]:
        """[R] places in `subjects`, rising, and [R] rows there: one for each slice that knows one."""
        keys = digests([subject or "" for subject in subjects])
        rows = np.full((len(subjects), len(self._slices)), -1)
        for at, placed in enumerate(self._slices.values()):
            local = placed.slice.users.find_digests(keys)
            rows[:, at] = np.where(local >= 0, local + placed.first_user, -1)
        place, slot = np.nonzero(rows >= 0)
        return place, rows[place, slot]

    def _subject(self, row: int) -> str | None:
        _, placed, local = self.home_of(row)
        return placed.slice.users.id_of(local)
