"""The users of each named session, within a limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.state.session_users import FORGOTTEN, MOST_USERS, NAME, SEEN, USER, SessionUsers, kept_sessions

LIMIT = 4
links = st.lists(st.tuples(st.integers(1, 7), st.integers(10, 19)), max_size=60)  # (session, user)


def fold(one: SessionUsers, log: list[tuple[int, int]], first: int = 1) -> None:
    names, users = (np.array([link[at] for link in log], np.int64) for at in range(2))
    digests = np.stack([np.arange(20), np.zeros(20, np.int64)], axis=1)  # that of a user's row is its number
    offsets = np.arange(first - 1, first - 1 + len(log))
    one.fold(names, users, np.full(len(log), -1), offsets, digests)


def held(one: SessionUsers) -> dict[int, tuple[int, list[int]]]:
    rows = one.table.array[: one.rows].tolist()
    return {row[NAME]: (row[SEEN], [user for user in row[USER:] if user]) for row in rows if row[SEEN] > 0}


def one_by_one(log: list[tuple[int, int]]) -> dict[int, tuple[int, list[int]]]:
    """The same in plain Python: beyond the limit the one not named for longest goes, and few that users share."""
    found: dict[int, tuple[int, list[int]]] = {}
    for offset, (name, user) in enumerate(log, 1):
        if name not in found and len(found) == LIMIT:
            shared = sorted((seen, name) for name, (seen, users) in found.items() if len(users) > 1)
            stay = [name for _, name in shared[-LIMIT // 2 :]]
            del found[min(found, key=lambda other: (other in stay, found[other][0]))]
        users = found.get(name, (0, []))[1]
        found[name] = offset, users if user in users else [*users, user][:MOST_USERS]
    return found


@pytest.mark.parametrize("copying", [False, True])
@given(log=links, cut=st.integers(0, 60))
def test_any_cutting_of_links_and_a_restart_keep_the_first_users_of_the_sessions_named_last(copying, log, cut):
    one, copy = SessionUsers(LIMIT), None
    fold(one, log[:cut])
    at_cut = one.table.data[: one.rows].clone()
    if copying:
        copy = one.table.copy(one.rows)
    again = SessionUsers(LIMIT)
    again.table.data[: one.rows] = at_cut
    again.restore(one.rows)
    for each in (one, again):
        fold(each, log[cut:], 1 + len(log[:cut]))
        assert held(each) == one_by_one(log)
        assert each.rows <= LIMIT
    if copy is not None:
        list(copy.pieces(1))
        assert copy.data.equal(at_cut)
    for name in range(1, 8):
        users = one.users_of(np.array([name]))[0]
        assert users[users != 0].tolist() == one_by_one(log).get(name, (0, []))[1]


def test_a_user_who_is_forgotten_counts_and_is_not_named():
    one = SessionUsers(LIMIT)
    fold(one, [(1, 10), (1, 11), (2, 10), (3, 12)])
    copy = one.table.copy(one.rows)
    one.forget(10)
    assert held(one) == {1: (2, [FORGOTTEN, 11]), 2: (3, [FORGOTTEN]), 3: (4, [12])}
    list(copy.pieces(1))
    assert int((copy.data == 10).sum()) == 2


def test_where_fewer_sessions_may_be_kept_one_that_users_share_and_the_one_named_last_stay():
    one = SessionUsers(LIMIT)
    fold(one, [(1, 10), (1, 11), (2, 10), (3, 10), (4, 10)])
    rows = kept_sessions(one.table.array, 2)
    assert one.table.data[torch.from_numpy(rows), NAME].tolist() == [1, 4]
