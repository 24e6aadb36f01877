"""Sessions against a loop over events."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.state.sessions import Sessions

GAP_S = 10
events = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([-1, 7, 8]), st.integers(0, 5), st.integers(0, 60_000)), max_size=25
)


class OneByOne:
    def __init__(self):
        self.last = {}

    def fold(self, user, name, item, time_ms):
        ordinal, previous_name, previous_item, previous_ms = self.last.get(user, (0, None, -1, None))
        starts = previous_ms is None or name != previous_name or (name == -1 and time_ms - previous_ms > GAP_S * 1000)
        ordinal += starts
        self.last[user] = (ordinal, name, item, time_ms)
        return ordinal, -1 if starts else previous_item


@given(batches=st.lists(events, max_size=4))
def test_batches_are_cut_into_sessions_as_one_event_at_a_time_would_be(batches):
    sessions, oracle = Sessions(GAP_S), OneByOne()
    sessions.grow(3)
    for batch in batches:
        columns = [torch.tensor([event[at] for event in batch], dtype=torch.int64) for at in range(4)]
        got = sessions.fold(*columns)
        want = [oracle.fold(*event) for event in batch]
        assert list(zip(got.ordinal.tolist(), got.previous.tolist(), strict=True)) == want
