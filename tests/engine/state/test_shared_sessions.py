"""A session id that strangers share links none of them: neither histories nor exports join its events to a user."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest

from engine.config import EventsConfig, StateConfig
from engine.state.export import export_subject
from engine.state.session_users import MOST_USERS
from engine.state.slice import Slice
from engine.state.state import State
from engine.state.subjects import subject_key
from tests.engine.logs import Line, batch, numbered
from tests.engine.state.digests import edges_of

PARTITIONS = 3
USERS = ("ann", "bob", "cid")  # one more than may share a session
ANONYMOUS = Line("", "s1", "z", time_ms=1)


def new_state(max_session_users: int = 2, max_users: int = 60) -> State:
    config = StateConfig(history=4, content_dim=8, max_users=max_users, max_session_users=max_session_users)
    return State(config, EventsConfig(), partitions=PARTITIONS)


def folded(lines: Sequence[Line], state: State | None = None, **limits) -> State:
    state = state or new_state(**limits)
    at = {partition: placed.slice.position for partition, placed in state.slices.items()}
    for line in numbered(lines):
        state.fold(batch([line._replace(offset=line.offset + at.get(line.partition, 0))]))
    return state


def signed_in(*users: str, session: str = "s1", partition: int = 0) -> list[Line]:
    return [Line(user, session, f"of {user}", time_ms=5, partition=partition) for user in users]


def reached(state: State, user: str) -> bool:
    """Whether the events of the session s1 are part of a user's history and export, which must say the same."""
    (row,) = state.find_users([user])
    in_history = "z" in [edge[0] for edge in edges_of(state.histories([row]), 0, state.items.id_of)]
    exported = "s1" in {one.session_id for one in export_subject(state, user)}
    assert in_history == exported
    return exported


def restarted(state: State) -> State:
    """What a snapshot of all slices is restored to."""
    again = new_state()
    for partition, placed in state.slices.items():
        one = placed.slice
        tables = {name: table.data[:rows].clone() for name, (table, rows) in one.tables().items()}
        fresh: Slice = again.new_slice()
        fresh.restore(one.save(tables, one.users.ids(), one.items.ids(), one.relations.targets.ids()))
        again.open(partition, fresh)
    return again


def test_a_session_of_as_many_users_as_may_share_it_links_all_of_them():
    state = folded([ANONYMOUS, *signed_in("ann", "bob")])
    assert reached(state, "ann") and reached(state, "bob")


@pytest.mark.parametrize("lines", [*permutations([ANONYMOUS, *signed_in(*USERS)])])
def test_a_session_of_more_users_links_none_of_them_in_any_order_of_their_events(lines):
    state = folded(lines)
    assert [reached(state, user) for user in USERS] == [False] * 3


@pytest.mark.parametrize("partitions", [(0, 1, 2), (0, 0, 1), (2, 1, 1), (1, 1, 1)])
def test_users_are_counted_over_all_partitions_each_once(partitions):
    state = folded([ANONYMOUS, *signed_in("ann", "bob"), *signed_in("ann", "bob", partition=2)])
    assert reached(state, "ann") and reached(state, "bob")
    lines = [signed_in(user, partition=at)[0] for user, at in zip(USERS, partitions, strict=True)]
    state = folded([ANONYMOUS, *lines])
    assert [reached(state, user) for user in USERS] == [False] * 3


def test_a_session_stays_closed_when_its_users_move_on_and_after_a_restart():
    moved = [line for user in USERS for at in range(9) for line in signed_in(user, session=f"{user}'s {at}")]
    state = folded([ANONYMOUS, *signed_in(*USERS), *moved])
    for one in (state, restarted(state)):
        folded(signed_in("dan", partition=1), one)
        assert not reached(one, "dan")


def test_users_who_had_moved_on_before_the_last_one_came_count_too():
    lines: list[Line] = [ANONYMOUS]
    for user in USERS:
        lines += signed_in(user)
        lines += [line for at in range(9) for line in signed_in(user, session=f"{user}'s {at}")]
    state = folded([*lines, *signed_in("dan")])
    assert not reached(state, "dan")


def test_users_before_and_after_a_restart_are_counted_together():
    state = restarted(folded([ANONYMOUS, *signed_in("ann", "bob")]))
    assert reached(state, "ann")
    folded(signed_in("cid", partition=1), state)
    assert [reached(state, user) for user in USERS] == [False] * 3


def test_forgetting_one_of_too_many_users_opens_the_session_to_nobody_and_leaves_it_to_itself():
    state = folded([ANONYMOUS, *signed_in(*USERS)])
    held = {one.session_id for one in export_subject(state, "ann")}
    assert held == {""}  # a user is forgotten together with the sessions of the export
    folded([Line("ann", forget=True, partition=at) for at in range(PARTITIONS)], state)
    assert not reached(state, "bob") and not reached(state, "cid")
    (session,) = export_subject(state, subject_key("", "s1"))
    assert [event.item_id for event in session.history] == ["z"]


def test_the_count_holds_nothing_that_tells_who_was_forgotten():
    state = folded([ANONYMOUS, *signed_in("ann")])
    other = folded([ANONYMOUS, *signed_in("bob")])
    for one, user in ((state, "ann"), (other, "bob")):
        folded([Line(user, forget=True)], one)
    ours, others = (one.slices[0].slice.session_users.table.data for one in (state, other))
    assert ours.equal(others) and ours.any()


def test_thousands_of_users_and_then_more_sessions_than_are_remembered_open_no_session():
    state = new_state(max_users=24 * PARTITIONS)
    folded([ANONYMOUS, *signed_in(*(f"u{at}" for at in range(100)))], state)
    for at in range(100):  # each is of one user, and there is room for 24 sessions
        folded(signed_in("cid", session=f"own {at}"), state)
    folded([ANONYMOUS, *signed_in("ann", "cid")], state)
    assert not reached(state, "ann") and not reached(state, "cid")


def test_the_events_of_a_session_that_links_nobody_are_its_own_history_over_all_partitions():
    state = folded([ANONYMOUS, ANONYMOUS._replace(partition=1, item="y"), *signed_in(*USERS)])
    (row,) = state.find_users([subject_key("", "s1")])
    assert {edge[0] for edge in edges_of(state.histories([row]), 0, state.items.id_of)} == {"y", "z"}


def test_other_sessions_of_the_same_users_stay_linked():
    own = [Line("", "s2", "y", time_ms=2), *signed_in("ann", session="s2")]
    state = folded([ANONYMOUS, *own, *signed_in(*USERS)])
    assert {one.session_id for one in export_subject(state, "ann")} == {"", "s2"}


@pytest.mark.parametrize("limit", range(MOST_USERS))
def test_every_limit_that_may_be_set_links_that_many_users_and_no_more(limit):
    users = [f"u{at}" for at in range(limit + 1)]
    if limit:
        assert reached(folded([ANONYMOUS, *signed_in(*users[:limit])], max_session_users=limit), "u0")
    assert not reached(folded([ANONYMOUS, *signed_in(*users)], max_session_users=limit), "u0")


def test_no_limit_may_be_set_that_the_table_could_not_tell():
    with pytest.raises(ValueError, match="max_session_users"):
        StateConfig(max_session_users=MOST_USERS)
