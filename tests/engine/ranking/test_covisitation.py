"""Lists by co-visitation, against counting by hand what followed what."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import RankingConfig
from engine.events.batch import CatalogItem
from engine.ranking.asked import Asked
from engine.ranking.moment import Now
from engine.ranking.query import Basis, Origin, Query, RankedItem, Source
from engine.ranking.scorers import SCORERS
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch, numbered
from tests.engine.worlds import NOW_MS, USERS, small_config, small_state

CONFIG = small_config()
RANKING = CONFIG.ranking
MINUTE_MS = 60_000


class Listed(NamedTuple):
    items: tuple[RankedItem, ...]
    origin: Origin
    basis: Basis


@pytest.fixture
def state() -> State:
    return small_state(CONFIG)


def lists(state: State, *queries: Query, config: RankingConfig = RANKING, name: str = "covisitation"):
    made = SCORERS[name](Asked.of(queries, state, config), Now(state, NOW_MS), config)
    scale = state.popularity_scale
    return [
        Listed(scored.page.items(state), scored.origin, scored.basis(query, scale))
        for query, scored in zip(queries, made, strict=True)
    ]


def ids(scored: Listed) -> list[str]:
    return [item.item_id for item in scored.items]


def folded(*sessions: tuple[str, str], items=()) -> State:
    """A state in which users had items, one letter each, a minute after another; a day lies between the sessions."""
    lines = [
        Line(user, "", item, 0, NOW_MS + day * 24 * HOUR_MS + at * MINUTE_MS)
        for day, (user, names) in enumerate(sessions)
        for at, item in enumerate(names)
    ]
    state = State(CONFIG.state, CONFIG.events)
    state.fold(batch(numbered(lines), items))
    return state


def test_what_else_those_had_who_had_the_users_latest_item_comes_first():
    state = folded(("bob", "ax"), ("cid", "by"), ("dan", "by"), ("ann", "ab"))
    (made,) = lists(state, Query("ann", "", 4))
    # Two who had "b", the latest, had "y", and one who had "a", the one before, had "x".
    assert ids(made) == ["b", "y", "a", "x"] and made.origin == Origin.COVISITATION
    assert Source.NEIGHBOR in made.items[1].sources
    (made,) = lists(state, Query("ann", "", 4, exclude_history=True))
    assert ids(made) == ["y", "x"]


def by_hand(state: State, user: str) -> dict[str, float]:
    """The share of each item in what those had who lately had any of the user's latest 8 items, the latest counting
    most."""
    (row,) = state.find_users([user])
    history = [item for item in state.histories([row]).row[0].tolist() if item >= 0][-8:]
    agree: dict[int, float] = defaultdict(float)
    for back, item in enumerate(reversed(history)):
        if item not in history[len(history) - back :]:
            for voter in state.graph.item_users.latest(torch.tensor([item])).row[0].tolist():
                agree[voter] += 1 / (1 + back) if voter not in (-1, row) else 0
    votes: dict[str, float] = defaultdict(float)
    for voter, weight in agree.items():
        for item in state.graph.user_items.latest(torch.tensor([voter]), 16).row[0].tolist() if weight else ():
            if item >= 0:
                votes[state.items.id_of(item)] += weight
    total = sum(votes.values())
    return {item: vote / total for item, vote in votes.items()}


@settings(max_examples=40, deadline=None)
@given(
    sessions=st.lists(st.tuples(st.sampled_from(["ann", "bob", "cid"]), st.text("abcdefgh", min_size=1, max_size=6))),
    k=st.integers(1, 12),
)
def test_a_score_is_the_share_of_what_neighbors_had_and_that_of_popularity(sessions, k):
    state = folded(*sessions)
    for user in ("ann", "bob", "nobody"):
        (made,) = lists(state, Query(user, "", k))
        (popular,) = lists(state, Query(user, "", 100), name="popularity")
        share = {item.item_id: item.score for item in popular.items}
        said = by_hand(state, user) if state.find_users([user])[0] >= 0 else {}
        # All items of so small a shop are among the popular candidates.
        want = {item: said.get(item, 0.0) + share[item] for item in share}
        scores = [item.score for item in made.items]
        assert scores == pytest.approx(sorted(want.values(), reverse=True)[:k], rel=1e-5)
        assert all(item.score == pytest.approx(want[item.item_id], rel=1e-5) for item in made.items)
        assert len(set(ids(made))) == len(made.items)
        assert made.origin == (Origin.COVISITATION if said else Origin.POPULARITY)


def test_items_of_friends_and_of_like_entities_come_before_items_that_are_popular_alone():
    state = folded(("bob", "ax"), ("cid", "f"), ("dan", "ppp"), ("eve", "e"), ("ann", "a"))
    related = [
        Line("ann", "", "", 1, NOW_MS, 0, 100, target="cid"),
        Line("", "", "a", 2, NOW_MS, 0, 101, target="brand"),
        Line("", "", "e", 2, NOW_MS, 0, 102, target="brand"),
    ]
    state.fold(batch(related))
    (made,) = lists(state, Query("ann", "", 5))
    assert set(ids(made)[:4]) == {"a", "x", "f", "e"} and ids(made)[4] == "p"
    sources = {item.item_id: set(item.sources) for item in made.items}
    assert Source.FRIEND in sources["f"] and Source.ENTITY in sources["e"]


def test_who_is_known_and_of_whom_nothing_follows_gets_the_list_of_popularity():
    state = folded(("bob", "xy"), ("ann", "z"))
    (made,), (popular,) = lists(state, Query("ann", "", 3)), lists(state, Query("nobody", "", 3))
    assert made.origin == Origin.POPULARITY
    assert [(item.item_id, item.score) for item in made.items] == [(one.item_id, one.score) for one in popular.items]


def test_a_neighbor_that_may_not_be_shown_gives_its_place_to_the_next_one():
    gone = [CatalogItem("x", deleted=True), CatalogItem("y", categories=("c",)), CatalogItem("w", categories=("c",))]
    state = folded(("bob", "axyb"), ("bob", "aw"), ("ann", "a"), items=gone)
    assert "x" not in ids(lists(state, Query("ann", "", 3))[0])
    (made,) = lists(state, Query("ann", "", 5, categories=("c",)))
    assert ids(made) == ["w", "y"]
    (made,) = lists(state, Query("ann", "", 5, exclude_history=True, exclude_item_ids=("w",)))
    assert not {"a", "w", "x"} & set(ids(made)) and len(made.items) == 2


def test_a_list_that_the_candidates_do_not_fill_ends_with_what_is_popular():
    state = folded(("bob", "ax"), ("ann", "a"), *(("cid", name) for name in "defghijk" * 2))
    few = RANKING.model_copy(update={"popular_candidates": 1})
    (made,) = lists(state, Query("ann", "", 9), config=few)
    (popular,) = lists(state, Query("ann", "", 9), name="popularity")
    assert set(ids(made)[:2]) == {"a", "x"} and len(made.items) == 9
    assert ids(made)[2:] == [item for item in ids(popular) if item not in "ax"][:7]


def test_a_list_made_alone_equals_the_same_list_made_with_others(state):
    queries = [Query(user, "", k) for user in [*USERS, "nobody"] for k in (1, 4, 30)]
    together = lists(state, *queries)
    for query, made in zip(queries, together, strict=True):
        (alone,) = lists(state, query)
        assert alone.items == made.items and alone.origin == made.origin
        assert alone.basis.rows.tolist() == made.basis.rows.tolist() and alone.basis.floor == made.basis.floor


def test_every_scorer_answers_every_query_in_order(state):
    queries = [Query("nobody", "", 2), Query("u1", "", 3), Query("u2", "", 1)]
    for name in SCORERS:
        assert [len(made.items) for made in lists(state, *queries, name=name)] == [2, 3, 1], name
