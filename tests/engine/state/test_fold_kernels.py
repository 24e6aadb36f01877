"""One compiled pass over a slice's events, beside the same events folded structure by structure."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.state.fold_kernels import find_rising
from engine.state.slice import Slice
from tests.engine.logs import HOUR_MS, Line, batch, numbered
from tests.engine.state.digests import slice_digest

lines = st.lists(
    st.builds(
        lambda user, session, item, kind, time_ms, value: Line(user, session, item, kind, time_ms, value=value),
        st.sampled_from(["ann", "bob", "cid", "dan"]),
        st.sampled_from(["", "s1", "s2"]),
        st.sampled_from([*"vwxyz"]),
        st.integers(0, 7),
        st.sampled_from([0, 1000 * HOUR_MS]) | st.integers(0, 100 * HOUR_MS),
        st.sampled_from([1.0, 0.1, -2.0]),
    ),
    max_size=30,
)


@given(log=lines.map(numbered), size=st.integers(1, 8), users=st.sampled_from([3, 16]))
def test_one_pass_folds_what_the_structures_fold_one_by_one(log, size, users):
    config = StateConfig(max_items=4, history=4, neighbors=3, half_lives_s=(3600, 60), content_dim=8)
    one, other = Slice(config, EventsConfig(), users), Slice(config, EventsConfig(), users)
    other.users.seen.copy(0)  # while a table is being copied, it has to hear of what is written
    for first in range(0, len(log), size):
        part = log[first : first + size]
        got, want = (a_slice.fold(batch(part).events, part[-1].offset + 1) for a_slice in (one, other))
        for name, column in vars(want).items():
            assert np.array_equal(getattr(got, name), column), name
    assert slice_digest(one) == slice_digest(other)


@given(offset=st.lists(st.integers(0, 20)), newest=st.integers(-1, 20))
def test_an_offset_rises_where_none_before_was_as_great(offset, newest):
    at = np.empty(len(offset), np.int64)
    count = find_rising(np.array(offset, np.int64), newest, at)
    assert at[:count].tolist() == [e for e, one in enumerate(offset) if one > max([newest, *offset[:e]])]
