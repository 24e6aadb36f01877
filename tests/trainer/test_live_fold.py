"""Popularity as the trainer folds it is that of the engine's state, with what one user adds bounded in both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.state.merged_kernels import counts_of_slices
from tests.engine.logs import HOUR_MS, Line, batch, numbered
from trainer.live_fold import LiveFold
from trainer.replay import Replay

EVENTS = EventsConfig(max_future_s=365 * 86_400.0)
CONFIG = StateConfig(history=16, neighbors=4, content_dim=16, max_users=64, max_items=64, user_item_weight=2.0)


def shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum()


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 7), st.integers(0, 30)), min_size=1
    ),
    sizes=st.lists(st.integers(1, 9), max_size=5),
)
def test_the_trainer_and_the_engine_agree_on_popularity(events, sizes):
    elapsed = np.cumsum([hours for *_, hours in events])
    lines = numbered(
        Line(user, "", item, kind, 1_600_000_000_000 + int(hours) * HOUR_MS)
        for (user, item, kind, _), hours in zip(events, elapsed, strict=True)
    )
    replay = Replay(CONFIG, EVENTS, 1000)
    replay.fold(batch(lines))
    data = replay.data()
    live = LiveFold(data)
    first = 0
    for size in [*sizes, len(data.log)]:
        live.fold(data.log.slice(first, min(len(data.log), first + size)))
        first = min(len(data.log), first + size)
    rows = replay.state.items.find(data.item_ids).numpy()
    counts = counts_of_slices(live.live().popular.counts, np.arange(len(CONFIG.half_lives_s)), np.arange(data.items))
    for half_life, got in enumerate(counts.T):
        want = replay.state.decayed_counts(rows, half_life)
        assert shares(got).tolist() == pytest.approx(shares(want).tolist(), rel=1e-9)
    assert live.popularity.score[: data.items].tolist() == counts[:, 0].tolist()


def test_one_user_of_a_log_adds_a_bounded_weight():
    lines = numbered(
        [
            *(Line("eve", "", "x", 0, 10**12) for _ in range(500)),
            *(Line(f"u{at}", "", "y", 0, 10**12) for at in range(9)),
        ]
    )
    replay = Replay(CONFIG, EVENTS, 1000)
    replay.fold(batch(lines))
    data = replay.data()
    live = LiveFold(data)
    live.fold(data.log)
    assert [data.item_ids[row] for row in live.popularity.top(2).tolist()] == ["y", "x"]
    assert live.popularity.share().tolist() == pytest.approx([2 / 11, 9 / 11])
