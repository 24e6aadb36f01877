"""When rows are due, against a plain dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.state import timetable
from engine.state.timetable import NEVER, Timetable

step = st.one_of(
    st.dictionaries(st.integers(0, 9), st.integers(0, 30) | st.just(NEVER), max_size=6),  # put
    st.tuples(st.integers(0, 30), st.integers(1, 5)),  # take
)


@given(steps=st.lists(step, max_size=30), few=st.integers(0, 4))
def test_a_row_is_due_once_at_the_time_that_was_put_last(steps, few):
    table, plain = Timetable(), dict[int, int]()
    before, timetable._FEW = timetable._FEW, few
    try:
        for step in steps:
            if isinstance(step, dict):
                table.put(np.array([*step], np.int64), np.array([*step.values()], np.int64))
                plain |= step
                plain = {row: due_ms for row, due_ms in plain.items() if due_ms < NEVER}
            else:
                now_ms, limit = step
                due = {row for row, due_ms in plain.items() if due_ms <= now_ms}
                taken: set[int] = set()
                while table.due(now_ms):
                    rows = table.take(now_ms, limit).tolist()
                    assert len(rows) <= 2 * limit and not taken & {*rows} and len({*rows}) == len(rows)
                    taken |= {*rows}
                assert taken == due
                plain = {row: due_ms for row, due_ms in plain.items() if row not in due}
            assert table.count == len(plain)
            assert table.entries <= 2 * len(plain) + 2 * (few + 3) + 10
    finally:
        timetable._FEW = before


def test_times_that_are_put_off_again_and_again_do_not_pile_up():
    table = Timetable()
    for at in range(20_000):
        table.put(np.array([at % 3]), np.array([10**9 + at]))
    assert table.count == 3 and table.entries <= 1024 + 3 + 3


def test_a_hundred_thousand_rows_that_are_due_at_once_are_taken_in_parts():
    table, rows = Timetable(), np.arange(100_000)
    table.put(rows, np.full(100_000, 7))
    assert not table.due(6)
    parts = []
    while table.due(7):
        parts.append(table.take(7, 4096))
    assert max(map(len, parts)) == 4096 and np.array_equal(np.concatenate(parts), rows)
    assert table.count == table.entries == 0
