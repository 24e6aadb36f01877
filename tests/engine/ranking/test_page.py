"""Pages against a sort."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.ranking.page import best_places


@given(
    batch=st.integers(1, 4),
    width=st.integers(0, 30),
    k=st.lists(st.integers(1, 40), min_size=4, max_size=4),
    levels=st.integers(1, 20),
    seed=st.integers(0, 999),
)
def test_the_best_that_are_there_come_first_and_ties_go_to_the_lower_row(batch, width, k, levels, seed):
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(100)[:width] for _ in range(batch)]).astype(np.int64)
    score = rng.integers(0, levels, (batch, width)).astype(np.float32) / 8 - 1
    rows[rng.random((batch, width)) < 0.3] = -1
    places = np.empty((batch, min(max(k[:batch]), width)), np.int64)
    count = best_places(rows, score, np.array(k[:batch]), places)
    for b in range(batch):
        ranked = sorted(np.flatnonzero(rows[b] >= 0).tolist(), key=lambda c: (-score[b, c], rows[b, c]))
        assert places[b, : count[b]].tolist() == ranked[: k[b]]
