"""Sessions against a loop over events."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.state.sessions import LINKS, UNNAMED, Sessions
from engine.state.table import Table

GAP_S, USERS, ITEMS = 10, 3, 6
event = st.tuples(
    st.integers(0, USERS - 1), st.sampled_from([UNNAMED, 7, -8, 9]), st.integers(0, ITEMS - 1), st.integers(0, 60_000)
)
batches_of_events = st.lists(st.lists(event, max_size=25), max_size=4)


class OneByOne:
    def __init__(self):
        self.last = {}
        self.links = {}
        self.gone = set()  # (user) whose last item is gone

    def fold(self, user, name, item, time_ms):
        ordinal, open_name, previous_item, newest_ms = self.last.get(user, (0, None, -1, time_ms))
        said = name == open_name != UNNAMED
        late = not said and time_ms < newest_ms - GAP_S * 1000
        starts = not late and (name != open_name or (not said and time_ms - newest_ms > GAP_S * 1000))
        if (starts or late) and name != UNNAMED:
            others = [link for link in self.links.get(user, []) if link != name]
            self.links[user] = [name, *others][:LINKS]
        if late:
            return 0, -1
        ordinal += starts
        self.last[user] = (ordinal, name, item, time_ms if starts else max(newest_ms, time_ms))
        return ordinal, -1 if starts else previous_item

    def evict(self, item):
        for user, (ordinal, name, last, time_ms) in self.last.items():
            if last == item:
                self.last[user] = (ordinal, name, -1, time_ms)


def new_sessions(*, copying: bool = False) -> tuple[Sessions, Table]:
    """Sessions, and the generations of the items; perhaps while a copy is being made, which hears of each row."""
    generation = Table(ITEMS, dtype=torch.int32)
    sessions = Sessions(USERS, GAP_S, items=generation)
    if copying:
        sessions.table.copy(USERS)
    assert sessions.table.loose is not copying
    return sessions, generation


def links(sessions: Sessions, user: int) -> list[int]:
    return [name for name in sessions.links(torch.tensor([user]))[0].tolist() if name != 0]


def fold(sessions: Sessions, batch: list[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
    user, *columns = (torch.tensor([event[at] for event in batch], dtype=torch.int64) for at in range(4))
    got = sessions.fold(user, *columns)
    return list(zip(got.ordinal.tolist(), got.previous.tolist(), strict=True))


both_ways = pytest.mark.parametrize("copying", [False, True])


@both_ways
@given(batches=batches_of_events, evicted=st.lists(st.integers(0, ITEMS - 1), max_size=4))
def test_batches_are_cut_into_sessions_as_one_event_at_a_time_would_be(copying, batches, evicted):
    (sessions, generation), oracle = new_sessions(copying=copying), OneByOne()
    for round_, batch in enumerate(batches):
        assert fold(sessions, batch) == [oracle.fold(*event) for event in batch]
        for user in range(USERS):
            assert links(sessions, user) == oracle.links.get(user, [])
            assert sessions.last_time_ms(torch.tensor([user])).tolist() == [oracle.last.get(user, (0, 0, 0, 0))[3]]
        if round_ < len(evicted):  # its row may stand for another item from here on
            row = torch.tensor([evicted[round_]])
            generation.put(row, generation.get(row) + 1)
            oracle.evict(evicted[round_])


@both_ways
@pytest.mark.parametrize("cut", range(1, 8))
def test_links_are_the_last_four_named_sessions_newest_first(copying, cut):
    sessions, _ = new_sessions(copying=copying)
    log = [(0, name, 1, 0) for name in (11, 12, UNNAMED, 13, 14, 15, 16)]
    fold(sessions, log[:cut])
    fold(sessions, log[cut:])
    assert links(sessions, 0) == [16, 15, 14, 13]
    assert links(sessions, 1) == []


@both_ways
def test_an_unnamed_session_goes_on_up_to_the_gap_and_a_named_one_through_any_pause(copying):
    sessions, _ = new_sessions(copying=copying)
    assert fold(sessions, [(0, UNNAMED, 1, 0), (0, UNNAMED, 2, 10_000), (0, UNNAMED, 3, 20_001)]) == [
        (1, -1),
        (1, 1),
        (2, -1),
    ]
    assert fold(sessions, [(1, 7, 1, 0), (1, 7, 2, 10**12), (1, 7, 3, 0)]) == [(1, -1), (1, 1), (1, 2)]


@both_ways
@pytest.mark.parametrize(("time_ms", "other_ms", "goes_on"), [(60_000, 0, True), (60_001, 60_000, False)])
def test_the_gap_is_counted_from_the_users_own_last_event_in_an_earlier_batch(copying, time_ms, other_ms, goes_on):
    sessions, _ = new_sessions(copying=copying)
    fold(sessions, [(1, UNNAMED, 2, 50_000)])
    # User 0's event stands in front of user 1's, in the log and among the rows.
    got = fold(sessions, [(0, UNNAMED, 3, other_ms), (1, UNNAMED, 4, time_ms)])
    assert got == [(1, -1), (1, 2) if goes_on else (2, -1)]


@both_ways
def test_a_late_event_neither_joins_nor_cuts_the_session_that_goes_on(copying):
    sessions, _ = new_sessions(copying=copying)
    on_time = [(0, UNNAMED, 1, 100_000), (0, UNNAMED, 2, 105_000), (0, UNNAMED, 3, 111_000)]
    late, overtaken = (0, UNNAMED, 4, 94_999), (0, UNNAMED, 5, 95_000)
    assert fold(sessions, [*on_time[:2], late, on_time[2]]) == [(1, -1), (1, 1), (0, -1), (1, 2)]
    # The gap counts from the newest event, and what has only been overtaken is of the session still.
    assert fold(sessions, [(1, *one[1:]) for one in (*on_time[:2], overtaken, on_time[2])]) == [
        (1, -1), (1, 1), (1, 2), (1, 5),
    ]  # fmt: skip
    assert fold(sessions, [(0, UNNAMED, 1, 121_000), (0, UNNAMED, 1, 131_001)]) == [(1, 3), (2, -1)]


@both_ways
def test_a_late_event_of_another_name_links_its_session_and_leaves_the_open_one(copying):
    sessions, _ = new_sessions(copying=copying)
    log = [(0, 7, 1, 100_000), (0, 9, 2, 0), (0, 9, 2, 1), (0, UNNAMED, 2, 2), (0, 7, 3, 3), (0, 7, 4, 100_001)]
    assert fold(sessions, log) == [(1, -1), (0, -1), (0, -1), (0, -1), (1, 1), (1, 3)]
    assert links(sessions, 0) == [9, 7]


@both_ways
def test_a_session_that_comes_back_takes_no_second_link(copying):
    sessions, _ = new_sessions(copying=copying)
    fold(sessions, [(0, name, 1, 0) for name in (7, 9, 7, 9, 7, 11, 9)])
    assert links(sessions, 0) == [9, 11, 7]


@both_ways
def test_no_events_change_nothing(copying):
    sessions, _ = new_sessions(copying=copying)
    assert fold(sessions, []) == []
    assert not sessions.table.data.any()
