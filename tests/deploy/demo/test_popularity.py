"""Decayed popularity against a sum over all events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deploy.demo.popularity import DecayedPopularity

_DAY_MS = 86_400_000


def _plain(events: list[tuple[str, int]], k: int, without: set[str], half_life_ms: float, now_ms: int) -> list[str]:
    score: dict[str, float] = {}
    for item_id, time_ms in events:
        score[item_id] = score.get(item_id, 0.0) + 0.5 ** ((now_ms - time_ms) / half_life_ms)
    return sorted(score.keys() - without, key=lambda item_id: (-score[item_id], item_id))[:k]


@given(
    events=st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 30)), min_size=1, max_size=60),
    without=st.sets(st.sampled_from("abcdefghijxyz"), max_size=4),
    kept=st.integers(1, 6),
    k=st.integers(0, 12),
)
def test_the_top_is_that_of_a_plain_sum_however_short_the_list_that_is_kept(
    events: list[tuple[str, int]], without: set[str], kept: int, k: int
) -> None:
    # A half-life of one day and whole days: the sums are exact in floating point.
    timed = [(item_id, day * _DAY_MS) for item_id, day in events]
    popularity = DecayedPopularity(half_life_s=86_400, kept=kept)
    for item_id, time_ms in timed:
        popularity.add(item_id, time_ms)
    newest = max(time_ms for _, time_ms in timed)
    assert popularity.top(k, without) == _plain(timed, k, without, _DAY_MS, newest)


def test_a_purchase_weighs_half_after_a_week() -> None:
    popularity = DecayedPopularity()
    for _ in range(3):
        popularity.add("old", 0)
    popularity.add("new", 7 * _DAY_MS)
    assert popularity.top(2) == ["old", "new"]  # 1.5 against 1
    popularity.add("new", 7 * _DAY_MS)
    assert popularity.top(2) == ["new", "old"]
