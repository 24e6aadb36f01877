from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.model.ranker import FEATURES, TRENDS, Ranker, candidate_features, trend_half_lives, trend_of
from engine.model.votes import VOTES
from engine.state.ring import Neighbors

DAY_MS = 86_400_000
SEEDED = torch.Generator().manual_seed(0)
past = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 9)), max_size=7)


def history_of(events: list[tuple[int, int, int]], size: int) -> tuple[Neighbors, list[tuple[int, int, int]]]:
    """One user's ring, and its (item, session, time) oldest first."""
    session, time_ms, told = 1, 0, []
    for item, skipped, days in events:
        session, time_ms = session + skipped, time_ms + days * DAY_MS
        told.append((item, session, time_ms))
    pad = size - len(told)
    row, sessions, times = zip(*told, strict=True) if told else ((), (), ())
    zeros = torch.zeros(1, size, dtype=torch.int64)
    return (
        Neighbors(
            torch.tensor([[-1] * pad + list(row)]),
            torch.tensor([[0] * pad + list(times)]),
            zeros,
            zeros.float(),
            torch.tensor([[0] * pad + list(sessions)], dtype=torch.int32),
        ),
        told,
    )


def plain_features(
    item: int,
    told: list[tuple[int, int, int]],
    following: list[int],
    share: float,
    trend: list[float],
    votes: list[float],
) -> list[float]:
    current = told[-1][1] if told else 0
    now = told[-1][2] if told else 0
    mine = [(current - session, (now - time_ms) / DAY_MS) for row, session, time_ms in told if row == item]
    count, sessions = len(mine), max([current - session for _, session, _ in told], default=0) + 1
    newest = min((days for _, days in mine), default=0.0)
    interval = (max(days for _, days in mine) - newest) / (count - 1) if count > 1 else 0.0
    return [
        math.log(share + 1e-7) / 8 + 1,
        math.log1p(count),
        float(count > 0),
        float(any(ago == 0 for ago, _ in mine)),
        math.log1p(min(ago for ago, _ in mine)) / 3 if mine else 0.0,
        math.log1p(newest) / 4,
        math.log1p(interval) / 4,
        max(-4.0, min(4.0, math.log((newest + 1) / (interval + 1)))) if count > 1 else 0.0,
        count / sessions,
        math.log1p(sum(2 ** (-ago / 4) for ago, _ in mine)),
        math.log1p(sum(2 ** (-ago / 16) for ago, _ in mine)),
        math.log1p(sum(2 ** (-days / 14) for _, days in mine)),
        math.log1p(following.count(item)),
        math.log1p(sum(session == current for _, session, _ in told)) / 4,
        math.log1p(sessions) / 4,
        1 - len({row for row, _, _ in told}) / max(1, len(told)),
        math.log(sum(2 ** (-days / 60) for _, days in mine) + 100 * share + 1e-4) / 4,
        math.log(count + 100 * share + 1e-4) / 4,
        *(math.log(value + 1e-5) / 6 + 1 for value in trend),
        *(float(len(told) > back and told[-1 - back][0] == item) for back in range(3)),
        *(math.log(value + 1e-4) / 4 + 1 for value in votes),
    ]


@given(events=past, following=st.lists(st.integers(-1, 5), min_size=4, max_size=4))
def test_features_are_what_plain_code_counts(events: list[tuple[int, int, int]], following: list[int]) -> None:
    history, told = history_of(events, size=7)
    candidates = torch.tensor([[3, 0, -1, 5, 1, 2, 4]])  # every item of the history, in no order
    share = torch.linspace(0, 0.3, 7)[None]
    trend, votes = torch.rand(1, 7, TRENDS, generator=SEEDED), torch.rand(1, 7, VOTES, generator=SEEDED)
    features = candidate_features(candidates, history, torch.tensor([following]), share, trend, votes)
    assert features.shape == (1, 7, FEATURES)
    assert torch.isfinite(features).all()
    for place, item in enumerate(candidates[0].tolist()):
        if item >= 0:
            expected = plain_features(
                item, told, following, share[0, place].item(), trend[0, place].tolist(), votes[0, place].tolist()
            )
            torch.testing.assert_close(features[0, place], torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_features_without_candidates_are_empty() -> None:
    history, _ = history_of([(1, 0, 0)], size=3)
    none = torch.zeros(1, 0)
    trend, votes = torch.zeros(1, 0, TRENDS), torch.zeros(1, 0, VOTES)
    assert candidate_features(none.long(), history, none.long(), none, trend, votes).shape == (1, 0, FEATURES)


def test_trends_are_relative_to_the_popular_items() -> None:
    counts, popular = torch.tensor([[[2.0, 0.0], [1.0, 3.0]]]).double(), torch.tensor([[3.0, 6.0], [1.0, 0.0]]).double()
    assert trend_of(counts, popular).tolist() == [[[0.5, 0.0], [0.25, 0.5]]]
    assert trend_of(counts * 0, popular * 0).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


def test_trends_fall_back_on_the_last_half_life_there_is() -> None:
    assert [trend_half_lives(count) for count in (1, 2, 3, 8)] == [[0, 0], [1, 1], [1, 2], [1, 2]]


def test_ranker_scores_every_candidate() -> None:
    assert Ranker()(torch.zeros(2, 3), torch.zeros(2, 3, FEATURES)).shape == (2, 3)


def test_a_trained_ranker_scores_a_candidate_whatever_stands_beside_it() -> None:
    ranker, score, features = Ranker().eval(), torch.randn(1, 5), torch.randn(1, 5, FEATURES)
    alone = torch.cat([ranker(score[:, at : at + 1], features[:, at : at + 1]) for at in range(5)], dim=1)
    torch.testing.assert_close(ranker(score, features), alone)
