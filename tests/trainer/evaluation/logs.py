"""Small logs by hand and by chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from trainer.data.log import Events

Row = tuple[int, int, int, float]  # user, session, item, time


def log_of(rows: Sequence[Row], items: int = 6, test: Sequence[bool] | None = None, timed: bool = True) -> Events:
    """Rows in log order. Item 3 has the id "i3"."""
    user, session, item, time = zip(*rows, strict=True)
    return Events(
        user=np.array(user, np.int64),
        session=np.array(session, np.int64),
        item=np.array(item, np.int64),
        time=np.array(time, np.float64),
        kind=np.zeros(len(rows), np.int64),
        value=np.ones(len(rows), np.float32),
        test=None if test is None else np.array(test),
        items=[f"i{at}" for at in range(items)],
        users=[f"u{at}" for at in range(max(user) + 1)],
        sessions=[f"s{at}" for at in range(max(session) + 1)],
        kinds=["view"],
        timed=timed,
    )


@st.composite
def rows(draw: st.DrawFn, users: int = 4, items: int = 6) -> list[Row]:
    """Users with few sessions each, and many equal times."""
    row = st.tuples(st.integers(0, users - 1), st.integers(0, 1), st.integers(0, items - 1), st.integers(0, 6))
    drawn = draw(st.lists(row, min_size=2, max_size=40))
    return [(user, 2 * user + session, item, float(time)) for user, session, item, time in sorted(drawn, key=by_time)]


def by_time(row: tuple[int, int, int, int]) -> int:
    return row[3]
