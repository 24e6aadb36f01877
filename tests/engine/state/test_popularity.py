"""Decayed popularity against the sum over all events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.state.popularity import DecayedCounts, Popularity, TopItems

HALF_LIFE_S, ITEMS, TOP = 3600.0, 6, 3
HOUR_MS = 3_600_000
HALF_LIVES_S = (0.5, 60.0, HALF_LIFE_S, 7 * 86_400.0)
LATEST_MS = 253_402_300_799_999


def listed(latest_ms: int, max_size: int = 15):
    return st.lists(
        st.tuples(st.integers(0, ITEMS - 1), st.integers(0, latest_ms), st.sampled_from([1.0, 2.0, 3.0])),
        max_size=max_size,
    )


events = listed(50 * HOUR_MS)


def fold(popularity: DecayedCounts | Popularity, batch: list[tuple[int, int, float]]) -> None:
    item, time_ms, weight = (np.array([event[at] for event in batch]) for at in range(3))
    half_lives = len(popularity.half_lives_ms) if isinstance(popularity, DecayedCounts) else 1
    weight = np.repeat(weight.astype(np.float64)[:, None], half_lives, axis=1)
    popularity.fold(item.astype(np.int64), time_ms.astype(np.int64), weight)


def decayed_sum(log: list[tuple[int, int, float]], half_life_s: float) -> np.ndarray:
    newest = max((event[1] for event in log), default=0)
    score = np.zeros(ITEMS)
    for item, time_ms, weight in log:
        score[item] += weight * 2.0 ** max(-1500, (time_ms - newest) / (half_life_s * 1000))
    return score


@given(batches=st.lists(events, max_size=5))
def test_shares_and_top_equal_the_sum_over_all_events(batches):
    popularity = Popularity([HALF_LIFE_S], TOP, ITEMS)
    for batch in batches:
        fold(popularity, batch)
    score = decayed_sum([event for batch in batches for event in batch], HALF_LIFE_S)
    assert popularity.share() == pytest.approx(score / (score.sum() or 1.0), rel=1e-9)
    top = popularity.top().tolist()
    assert len(top) == TOP
    assert [score[row] for row in top] == pytest.approx(sorted(score, reverse=True)[:TOP], rel=1e-9)


@given(
    steps=st.lists(
        st.one_of(
            st.integers(1, 3000).map(lambda items: ("grow", items)),
            st.lists(st.integers(0, 4999), min_size=1, max_size=5, unique=True).map(lambda rows: ("put", rows)),
            st.just(("replace", 0)), st.just(("ask", 0)),
        ),
        max_size=12,
    ),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_sum_of_all_scores_is_the_same_however_they_came(steps, seed):
    """Bit for bit: engines that have read the same log must make the same lists."""
    draw, top, items = np.random.default_rng(seed), TopItems(3), 1
    top.grow(items)
    for step, argument in steps:
        if step == "grow":
            items += argument
            top.grow(items)
        elif step == "put":
            rows = np.unique(np.array(argument) % items)
            top.put(rows, draw.random(len(rows)))
        elif step == "replace":
            top.replace(draw.random(items))
        else:
            assert top.total == pytest.approx(top.score[:items].sum())
    another = TopItems(3)
    another.grow(items)
    another.replace(top.score[:items])
    assert top.total == another.total == pytest.approx(top.score[:items].sum())


@given(batches=st.lists(listed(100 * HOUR_MS), max_size=4))
def test_under_each_of_several_half_lives_scores_are_the_sum_over_all_events(batches):
    counts = DecayedCounts(ITEMS, HALF_LIVES_S)
    log = [event for batch in batches for event in batch]
    for batch in batches:
        fold(counts, batch)
    newest = max((event[1] for event in log), default=0)
    for h, half_life_s in enumerate(HALF_LIVES_S):
        ago = newest / (half_life_s * 1000) - counts.landmarks[h]
        got = np.array([float(score) * 2.0**-ago for score in counts.table.data[:, h]])
        # The scale may run up to 64 ahead of late events: what is left of those is too small to count.
        assert got == pytest.approx(decayed_sum(log, half_life_s), rel=1e-6, abs=1e-250)
        assert counts.landmarks[h] % 64 == 0


@given(log=listed(LATEST_MS, 40), lengths=st.lists(st.integers(0, 9), max_size=9))
def test_scores_are_the_same_bits_under_any_batching_through_thousands_of_half_lives(log, lengths):
    whole, ones, parts = (DecayedCounts(ITEMS, HALF_LIVES_S) for _ in range(3))
    fold(whole, log)
    for event in log:
        fold(ones, [event])
    at = 0
    for length in [*lengths, len(log)]:
        fold(parts, log[at : at + length])
        at += length
    for one in (ones, parts):
        assert one.table.data.numpy().tobytes() == whole.table.data.numpy().tobytes()
        assert one.landmarks.tolist() == whole.landmarks.tolist()
    assert np.isfinite(whole.table.data.numpy()).all()


@given(batch=events, cut=st.integers(0, 15), shift_halvings=st.integers(0, 200))
def test_scores_and_top_do_not_depend_on_the_cut_into_batches(batch, cut, shift_halvings):
    late = [(item, time_ms + shift_halvings * HOUR_MS, weight) for item, time_ms, weight in batch]
    whole, parts = Popularity([HALF_LIFE_S], TOP, ITEMS), Popularity([HALF_LIFE_S], TOP, ITEMS)
    for popularity, batches in ((whole, [batch + late]), (parts, [batch[:cut], batch[cut:], late[:cut], late[cut:]])):
        for part in batches:
            fold(popularity, part)
            popularity.top()
    assert whole.score.tobytes() == parts.score.tobytes()
    assert whole.top().tolist() == parts.top().tolist()


def test_an_event_billions_of_half_lives_older_than_the_newest_counts_nothing():
    counts = DecayedCounts(2, [0.5])
    fold(counts, [(0, LATEST_MS, 1.0), (1, 0, 3.0)])
    assert counts.table.data[1, 0] == 0 and counts.table.data[0, 0] > 0


def test_restored_counts_go_on_as_those_they_were_saved_from():
    counts, restored = DecayedCounts(ITEMS, HALF_LIVES_S), DecayedCounts(ITEMS, HALF_LIVES_S)
    fold(counts, [(at, at * 40 * HOUR_MS, 2.0) for at in range(ITEMS)])
    restored.table.data[:] = counts.table.data
    restored.restore(counts.landmarks, ITEMS)
    for one in (counts, restored):
        fold(one, [(1, 900 * HOUR_MS, 1.0)])
    assert counts.table.data.numpy().tobytes() == restored.table.data.numpy().tobytes()
    assert counts.landmarks.tolist() == restored.landmarks.tolist()


def test_an_hour_old_event_counts_half():
    popularity = Popularity([HALF_LIFE_S], TOP, 2)
    fold(popularity, [(0, 0, 1.0), (1, HOUR_MS, 1.0)])
    assert popularity.share().tolist() == pytest.approx([1 / 3, 2 / 3])
    assert popularity.share(np.array([1])).tolist() == pytest.approx([2 / 3])


def test_hidden_items_leave_the_top_and_come_back():
    popularity = Popularity([HALF_LIFE_S], 2, 3)
    fold(popularity, [(0, 0, 3.0), (1, 0, 2.0), (2, 0, 1.0)])
    popularity.hide(np.array([0]), np.array([True]))
    assert popularity.top().tolist() == [1, 2]
    fold(popularity, [(0, 0, 3.0)])
    assert popularity.top().tolist() == [1, 2]
    popularity.hide(np.array([0]), np.array([False]))
    assert popularity.top().tolist() == [0, 1]


def test_before_any_event_the_first_items_fill_the_top():
    popularity = Popularity([HALF_LIFE_S], 2, 3)
    assert popularity.top().tolist() == [0, 1]
    assert popularity.share().tolist() == [0, 0, 0]


def test_items_that_are_hidden_one_by_one_cost_no_look_at_all_others_each_time(monkeypatch):
    top, made = TopItems(50), []
    top.grow(5000)
    top.replace(np.arange(5000.0))
    make = TopItems._make
    monkeypatch.setattr(TopItems, "_make", lambda self: made.append(make(self)))
    for row in range(4999, 3999, -1):
        top.hide(np.array([row]), np.array([True]))
        assert top.top(3).tolist() == [row - 1, row - 2, row - 3]
    assert len(made) <= 1000 // 50 + 1
    for row in range(4000, 5000):
        top.hide(np.array([row]), np.array([False]))
        assert top.top(1).tolist() == [row]
    assert len(made) <= 1000 // 50 + 1


step = st.one_of(
    st.dictionaries(st.integers(0, 29), st.integers(0, 3), min_size=1),  # what these rows gain
    st.integers(1, 30),  # grow
    st.lists(st.floats(0, 9), min_size=30, max_size=30),  # replace
    st.tuples(st.integers(0, 29), st.booleans()),  # hide
    st.none(),  # ask
)


@given(steps=st.lists(step, max_size=30), limit=st.integers(1, 4))
def test_the_top_is_the_sorted_scores_however_they_came_and_whenever_it_was_asked_for(steps, limit):
    top = TopItems(limit)
    scores: list[float] = []
    hidden: set[int] = set()
    for step in steps:
        if step is None:
            top.top()
        elif isinstance(step, int):
            top.grow(step)
            scores += [0.0] * (step - len(scores))
        elif isinstance(step, tuple):
            row, hide = step
            if row < len(scores):
                top.hide(np.array([row]), np.array([hide]))
                hidden.add(row) if hide else hidden.discard(row)
        elif isinstance(step, list):
            scores = step[: len(scores)]
            top.replace(np.array(scores))
        else:
            rows = [row for row in step if row < len(scores)]
            for row in rows:
                scores[row] += step[row]
            top.put(np.array(rows, dtype=np.int64), np.array([scores[row] for row in rows]))
        if step is not None and len(steps) % 2:  # every other example looks only when a step says so
            continue
        shown = [row for row in range(len(scores)) if row not in hidden]
        assert top.top().tolist() == sorted(shown, key=lambda row: (-scores[row], row))[:limit]
