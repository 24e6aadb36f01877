from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.features.live import Askers
from engine.features.table import FEATURES, HABITS, TRENDS, Crowd, features_of, trend_of
from engine.features.votes import VOTES
from engine.state.ring import Neighbors

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
SEEDED = np.random.default_rng(0)
GROUP = [7, -5, 7, -1, -5, 7]  # of each item; -1 is none
past = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 9 * 24)), max_size=7)


@dataclass(frozen=True)
class Event:
    item: int
    session: int
    time_ms: int


def history_of(events: list[tuple[int, int, int]], size: int) -> tuple[Neighbors, list[Event]]:
    """One user's ring, and its events oldest first; given are item, sessions and hours since the event before."""
    session, time_ms, told = 1, 0, []
    for item, skipped, hours in events:
        session, time_ms = session + skipped, time_ms + hours * HOUR_MS
        told.append(Event(item, session, time_ms))
    pad = [0] * (size - len(told))
    zeros = torch.zeros(1, size, dtype=torch.int64)
    return (
        Neighbors(
            torch.tensor([[-1 for _ in pad] + [event.item for event in told]]),
            torch.tensor([pad + [event.time_ms for event in told]]),
            zeros,
            zeros.float(),
            torch.tensor([pad + [event.session for event in told]], dtype=torch.int32),
        ),
        told,
    )


def due(since: float, interval: float) -> float:
    return max(-4.0, min(4.0, math.log((since + 1) / (interval + 1))))


def plain_features(
    item: int, told: list[Event], listed: list[int], following: list[int], share: float, now_ms: int
) -> list[float]:
    """The features from the user's own history, one by one, where the candidates are `listed`."""
    end = told[-1].time_ms if told else 0
    clock = max(now_ms, end)
    ago = {event: told[-1].session - event.session for event in told}
    since = {event: (clock - event.time_ms) / DAY_MS for event in told}

    def faded(events: list[Event], days: float = 60.0) -> float:
        return sum(2 ** (-(end - event.time_ms) / DAY_MS / days) for event in events)

    def hours_apart(event: Event) -> float:
        apart = abs(event.time_ms % DAY_MS - clock % DAY_MS) / HOUR_MS
        return min(apart, 24 - apart)

    def interval(events: list[Event], count: int) -> float:
        return (max(map(since.get, events)) - min(map(since.get, events))) / (count - 1)

    mine = [event for event in told if event.item == item]
    had = [event.item for event in told if event.item in listed]
    sessions, count = max(ago.values(), default=0) + 1, len(mine)
    hourly = sum(faded([event]) * math.exp(-((hours_apart(event) / 2) ** 2)) for event in mine)
    daily = faded([event for event in mine if event.time_ms // DAY_MS % 7 == clock // DAY_MS % 7])
    kin = [event for event in told if GROUP[event.item] == GROUP[item] != -1]
    visits = len({event.session for event in kin})
    newest, kin_newest = min(map(since.get, mine), default=0), min(map(since.get, kin), default=0)
    return [
        math.log(share + 1e-7) / 8 + 1,
        math.log1p(count),
        float(count > 0),
        float(any(ago[event] == 0 for event in mine)),
        math.log1p(min(map(ago.get, mine))) / 3 if mine else 0.0,
        math.log1p(newest) / 4,
        math.log1p(interval(mine, count)) / 4 if count > 1 else 0.0,
        due(newest, interval(mine, count)) if count > 1 else 0.0,
        count / sessions,
        math.log1p(sum(2 ** (-ago[event] / 4) for event in mine)),
        math.log1p(sum(2 ** (-ago[event] / 16) for event in mine)),
        math.log1p(faded(mine, 14)),
        math.log1p(following.count(item)),
        math.log1p(sum(back == 0 for back in map(ago.get, told))) / 4,
        math.log1p(sessions) / 4,
        1 - len(set(had)) / len(had) if had else 0.0,
        math.log1p(max(map(since.get, mine), default=0)) / 4,
        math.log(faded(mine) + 100 * share + 1e-4) / 4,
        math.log(count + 100 * share + 1e-4) / 4,
        math.log(sum(2 ** (-ago[event] / 16) for event in mine) / min(sessions, 23) + share + 1e-5) / 4 + 1,
        math.log(hourly + 100 / 6 * share + 1e-3) / 4,
        math.log(daily + 100 / 7 * share + 1e-3) / 4,
        math.log1p((clock - end) / DAY_MS if told else 0) / 4,
        math.log1p(len(told) / sessions) / 4,
        math.log1p(faded(kin)),
        visits / sessions,
        math.log1p(kin_newest) / 4,
        faded(mine) / faded(kin) if kin else 0.0,
        math.log1p(interval(kin, visits)) / 4 if visits > 1 else 0.0,
        due(kin_newest, interval(kin, visits)) if visits > 1 else 0.0,
    ]


def features(candidates: NDArray[np.int64], history: Neighbors, crowd: Crowd, now_ms: int) -> NDArray[np.float32]:
    askers = Askers.of(np.arange(len(history)), history.arrays(), now_ms)
    return features_of(candidates, askers, crowd, np.array(GROUP))


def crowd_of(candidates: int, following: list[int]) -> Crowd:
    columns = (SEEDED.random((1, candidates, n), np.float32) for n in (TRENDS, VOTES, HABITS))
    return Crowd(np.array([following], np.int64), np.linspace(0, 0.3, candidates)[None], *columns)


@given(
    events=past,
    following=st.lists(st.integers(-1, 5), min_size=4, max_size=4),
    later_hours=st.integers(-50, 500),
    left_out=st.sets(st.integers(0, 5)),
)
def test_features_are_what_plain_code_counts(
    events: list[tuple[int, int, int]], following: list[int], later_hours: int, left_out: set[int]
) -> None:
    # Distinct events, so that each can be looked up; two of an item at one time are in the test below.
    events = [(item, skipped, hours + 1) for item, skipped, hours in events]
    history, told = history_of(events, size=7)
    listed = [item for item in (3, 0, 5, 1, 2, 4) if item not in left_out]
    candidates = np.array([[*listed[:2], *[-1] * (7 - len(listed)), *listed[2:]]])  # in no order
    crowd = crowd_of(7, following)
    now_ms = max(0, (told[-1].time_ms if told else 0) + later_hours * HOUR_MS)
    made = features(candidates, history, crowd, now_ms)
    assert made.shape == (1, 7, FEATURES)
    assert np.isfinite(made).all()
    for place, item in enumerate(candidates[0].tolist()):
        if item < 0:
            assert not made[0, place].any()
            continue
        expected = [
            *plain_features(item, told, listed, following, crowd.share[0, place].item(), now_ms),
            *(math.log(value + 1e-5) / 6 + 1 for value in crowd.trend[0, place].tolist()),
            *(float(len(told) > back and told[-1 - back].item == item) for back in range(3)),
            *(math.log(value + 1e-4) / 4 + 1 for value in crowd.votes[0, place].tolist()),
            *crowd.habit[0, place].tolist(),
        ]
        np.testing.assert_allclose(made[0, place], expected, atol=1e-5, rtol=1e-5)


def test_an_item_twice_at_one_time_counts_twice_and_once_as_a_visit_of_its_group() -> None:
    history, _ = history_of([(0, 0, 0), (0, 0, 0), (2, 0, 0), (0, 1, 48)], size=4)
    made = features(np.array([[0]]), history, crowd_of(1, []), 0)[0, 0]
    assert made[1].item() == pytest.approx(math.log1p(3))
    assert made[6].item() == pytest.approx(math.log1p(1) / 4)  # two days from the first to the last of three
    assert made[25].item() == pytest.approx(2 / 2)
    assert made[28].item() == pytest.approx(math.log1p(2) / 4)


def test_a_row_of_many_is_as_it_would_be_alone() -> None:
    several = [history_of(events, size=7)[0] for events in ([(0, 0, 1), (2, 1, 5)], [], [(4, 0, 2)] * 7)]
    together = Neighbors(*(torch.cat(columns) for columns in zip(*(one.columns() for one in several), strict=True)))
    candidates, now_ms = np.array([[5, 4, 0, 2]]), 9 * DAY_MS
    crowd = crowd_of(4, [2, -1])
    alike = Crowd(*(np.repeat(column, 3, axis=0) for column in crowd))
    many = features(np.repeat(candidates, 3, axis=0), together, alike, now_ms)
    for at, one in enumerate(several):
        alone = features(candidates, one, crowd, now_ms)
        np.testing.assert_array_equal(many[at], alone[0])


def test_features_without_candidates_are_empty() -> None:
    history, _ = history_of([(1, 0, 0)], size=3)
    assert features(np.zeros((1, 0), np.int64), history, crowd_of(0, []), 0).shape == (1, 0, FEATURES)


def test_trends_are_relative_to_the_popular_items() -> None:
    assert trend_of(2.0, 4.0) == 0.5
    assert trend_of(0.0, 0.0) == 0.0


def test_a_trend_is_bounded_where_the_popular_items_have_had_nothing_lately() -> None:
    assert trend_of(5.0, 0.0) == trend_of(1e300, 0.0) == 1000.0
