"""How a slice from a snapshot of an older format becomes what this version would have saved: one step per format.

A version that changes what a slice holds raises `FORMAT` by one, unless that has happened since the last release, and
gives the step from the format before. A step sees the slice as the steps before it have left it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from engine.state.contributions import Contributions
from engine.state.id_table import digests
from engine.state.kernels import LINK
from engine.state.session_users import SessionUsers
from engine.state.slice import SavedSlice
from engine.state.subjects import session_of

FORMAT = 4
OLDEST_FORMAT = 2


def upgraded(saved: SavedSlice, version: int) -> SavedSlice:
    """A slice of format `version`, as this version has it.

    Raises:
        KeyError, ValueError: the slice is not what that format says.
    """
    for older in range(version, FORMAT):
        saved = _STEPS[older](saved)
    return saved


def _from_2(saved: SavedSlice) -> SavedSlice:
    """Format 3 also says where a slice `began`, which is 0 in older ones: they may hold all of the log's past.

    It also has the users of each session: of those in format 2, the links that users have now are known.

    The event ids of format 2 do not say whose they are, and `RecentIds` takes such ids as they are.
    """
    tables = {**saved.tables, "session_users": _linked_users(saved)}
    return replace(saved, numbers={"newest_ms": 0, "leapt_ms": 0, **saved.numbers}, tables=tables)


def _linked_users(saved: SavedSlice) -> Tensor:
    """The table of a `SessionUsers`, made of the links that the users have."""
    seen = saved.tables["users.seen"].numpy()
    rows = [row for row, name in enumerate(saved.users) if name is not None and not session_of(name)]
    users = np.array(rows, np.int64)[np.argsort(seen[rows], kind="stable")] if rows else np.zeros(0, np.int64)
    oldest_first = saved.tables["sessions"].numpy()[users, : LINK - 1 : -1]
    links = oldest_first.shape[1]
    names = oldest_first.ravel()
    keys = digests([saved.users[row] or "" for row in users.tolist()])
    linked = names != 0
    made = SessionUsers(max(1, len(saved.users)))
    place = np.repeat(np.arange(len(users)), links)[linked]
    made.fold(names[linked], place, np.full(len(place), -1), seen[users][place] - 1, keys)
    return made.table.data[: made.rows].clone()


def _from_3(saved: SavedSlice) -> SavedSlice:
    """Format 4 also says what users have added to items that they came back to.

    Of what is in format 3 nobody knows who added it, so it stays until it has decayed; from here on the bound holds.
    """
    half_lives = saved.tables["popularity"].shape[1]
    made = Contributions(1.0, 1, [1.0] * half_lives, np.zeros(0))
    tables = {"contributions": made.table.data[:0].clone(), "contributions.sums": made.sums.data[:0].clone()}
    return replace(saved, tables={**saved.tables, **tables})


_STEPS: Mapping[int, Callable[[SavedSlice], SavedSlice]] = {2: _from_2, 3: _from_3}
