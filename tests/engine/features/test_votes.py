from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.features.live import Askers, Rings
from engine.features.votes import DEPTH, SOURCES, VOTES, count_votes, read_voters
from engine.state.graph import Graph

USERS, ITEMS, NEIGHBORS = 6, 9, 4
HOUR_MS = 3_600_000
logs = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.integers(0, 40)), max_size=60)


def folded(log: list[tuple[int, int, int]]) -> tuple[Graph, list[tuple[int, int, int, int]]]:
    """The graph, and (user, item, previous item, time) of each event."""
    graph, told, last, time_ms = Graph.empty(32, NEIGHBORS, USERS, ITEMS), [], {}, 0
    for user, item, hours in log:
        time_ms += hours * HOUR_MS
        told.append((user, item, last.get(user, -1), time_ms))
        last[user] = item
    columns = [torch.tensor([event[at] for event in told], dtype=torch.int64) for at in range(4)]
    user, item, previous, time = columns
    ones = torch.ones(len(told))
    graph.insert(user, item, previous, time, torch.zeros(len(told), dtype=torch.int64), ones, ones.int())
    return graph, told


def plain_votes(told: list[tuple[int, int, int, int]], user: int, candidates: list[int]) -> list[list[float]]:
    """By plain counting over the events themselves."""
    mine = [(item, time_ms) for who, item, _, time_ms in told if who == user]
    cast = [dict.fromkeys(range(ITEMS), 0.0) for _ in range(VOTES)]
    now = mine[-1][1] if mine else 0
    sources = [item for item, _ in mine[-SOURCES:]][::-1]
    alike: dict[int, float] = {}
    common: dict[int, int] = {}
    for back, source in enumerate(sources):
        following = [item for _, item, previous, _ in told if previous == source][-NEIGHBORS:]
        for item in following:
            if back == 0:
                cast[5][item] += 1 / len(following)
            cast[6][item] += 1 / (1 + back) / len(following)
        if source in sources[:back]:
            continue
        for voter in [who for who, item, _, _ in told if item == source][-NEIGHBORS:]:
            if voter != user:
                alike[voter] = alike.get(voter, 0.0) + 1 / (1 + back)
                common.setdefault(voter, source)
    for voter, weight in alike.items():
        theirs = [(item, time_ms) for who, item, _, time_ms in told if who == voter][-DEPTH:]
        met = max((at for at, (item, _) in enumerate(theirs) if item == common[voter]), default=None)
        fresh = math.exp(-max(0.0, (now - theirs[-1][1]) / HOUR_MS) / 24)
        for at, (item, _) in enumerate(theirs):
            away = 0 if met is None else at - met
            close = math.exp(-abs(away) / 2) if away != 0 else 0.0
            cast[0][item] += weight
            cast[1][item] += weight**2 * fresh
            cast[2][item] += weight * close
            cast[3][item] += weight * close * fresh * (away > 0)
            cast[4][item] += weight**2 * close * fresh
    shares = []
    for candidate in candidates:
        shares.append([way[candidate] / (sum(way.values()) or 1.0) if candidate >= 0 else 0.0 for way in cast])
    return shares


def votes_of(graph: Graph, users: NDArray[np.int64], candidates: list[list[int]]) -> NDArray[np.float32]:
    history = graph.user_items.latest(torch.from_numpy(users))
    return count_votes(read_voters(Askers.of(users, history.arrays(), 0), Rings.of(graph)), np.array(candidates))


@given(log=logs, user=st.integers(0, USERS - 1), candidates=st.permutations(range(ITEMS)), kept=st.integers(0, ITEMS))
def test_votes_are_what_plain_code_counts(
    log: list[tuple[int, int, int]], user: int, candidates: list[int], kept: int
) -> None:
    graph, told = folded(log)
    rows = [*candidates[:kept], -1]
    users = np.array([user])
    votes = votes_of(graph, users, [rows])
    np.testing.assert_allclose(votes[0], plain_votes(told, user, rows), atol=1e-5, rtol=1e-5)


def test_a_voter_who_has_gone_far_from_the_item_in_common_still_votes() -> None:
    graph, told = folded([(0, 1, 0), (1, 1, 0), *((1, 2 + at % 5, 1) for at in range(DEPTH)), (0, 8, 0)])
    users, rows = np.array([0]), list(range(ITEMS))
    votes = votes_of(graph, users, [rows])
    np.testing.assert_allclose(votes[0], plain_votes(told, 0, rows), atol=1e-5, rtol=1e-5)
    assert votes[0, 2, 0] > 0
    assert votes[0, 2, 2] == 0


def test_a_user_does_not_vote_for_what_is_their_own() -> None:
    graph, _ = folded([(0, 1, 0), (0, 2, 0), (0, 3, 0)])
    history = graph.user_items.latest(torch.tensor([0]))
    candidates = np.arange(ITEMS)[None]
    own, others = (read_voters(Askers.of(np.array([row]), history.arrays(), 0), Rings.of(graph)) for row in (0, -1))
    assert not count_votes(own, candidates)[..., :5].any()
    assert count_votes(others, candidates)[..., :5].any()


def test_users_of_a_batch_are_counted_as_if_each_were_alone() -> None:
    graph, _ = folded([(who % USERS, (7 * who) % ITEMS, 1) for who in range(50)])
    candidates = list(range(ITEMS))
    together = votes_of(graph, np.arange(USERS), [candidates] * USERS)
    for user in range(USERS):
        assert together[user].tolist() == votes_of(graph, np.array([user]), [candidates])[0].tolist()
