"""Lists by co-visitation, against counting by hand what followed what."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import RankingConfig
from engine.events.batch import CatalogItem
from engine.ranking.query import Origin, Query, Source
from engine.ranking.scorers import SCORERS
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch, numbered
from tests.engine.worlds import NOW_MS, USERS, small_config, small_state

CONFIG = small_config()
RANKING = CONFIG.ranking
MINUTE_MS = 60_000


@pytest.fixture
def state() -> State:
    return small_state(CONFIG)


def lists(state: State, *queries: Query, config: RankingConfig = RANKING, name: str = "covisitation"):
    users = state.find_users([query.subject for query in queries])
    return SCORERS[name](queries, users, state, config, NOW_MS)


def ids(scored) -> list[str]:
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


def test_what_followed_the_users_latest_item_comes_first():
    state = folded(("bob", "ax"), ("cid", "by"), ("dan", "by"), ("ann", "ab"))
    (made,) = lists(state, Query("ann", "", 3))
    # "y" followed "b", the latest, and "x" and "b" followed "a", the one before.
    assert ids(made)[0] == "y" and set(ids(made)[1:3]) == {"x", "b"}
    assert made.origin == Origin.COVISITATION
    assert made.items[0].score == pytest.approx(2 / 3) and made.items[1].score == pytest.approx(1 / 6)
    assert Source.NEIGHBOR in made.items[0].sources


def by_hand(state: State, user: str) -> dict[str, float]:
    """The share of each item in what lately followed the user's latest 8 items, the latest counting most."""
    (row,) = state.find_users([user])
    history = [item for item in state.histories([row]).row[0].tolist() if item >= 0][-8:]
    votes: dict[str, float] = defaultdict(float)
    for back, item in enumerate(reversed(history)):
        edges = state.graph.item_next.latest(torch.tensor([item]))
        following = [one for one in edges.row[0].tolist() if one >= 0]
        for one in following:
            votes[state.items.id_of(one)] += 1 / (1 + back) / len(following)
    total = sum(votes.values())
    return {item: vote / total for item, vote in votes.items()}


@settings(max_examples=40, deadline=None)
@given(
    sessions=st.lists(st.tuples(st.sampled_from(["ann", "bob", "cid"]), st.text("abcdefgh", min_size=1, max_size=6))),
    k=st.integers(1, 12),
)
def test_scores_are_the_shares_of_what_followed_and_then_of_popularity(sessions, k):
    state = folded(*sessions)
    config = RANKING.model_copy(update={"neighbor_sources": 8})
    for user in ("ann", "bob", "nobody"):
        (made,) = lists(state, Query(user, "", k), config=config)
        (popular,) = lists(state, Query(user, "", k), name="popularity")
        shares = by_hand(state, user) if state.find_users([user])[0] >= 0 else {}
        scores = [item.score for item in made.items]
        assert scores == sorted(scores, reverse=True)
        assert len(set(ids(made))) == len(made.items) == len(popular.items)
        if not shares:
            assert (ids(made), scores) == (ids(popular), [item.score for item in popular.items])
            assert made.origin == Origin.POPULARITY
            continue
        assert made.origin == Origin.COVISITATION
        voted = [item for item in made.items if item.score > 0]
        assert len(voted) == min(k, len(shares))
        assert all(item.score == pytest.approx(shares[item.item_id], rel=1e-5) for item in voted)
        rest = [item.item_id for item in made.items if item.score <= 0]
        assert rest == [item for item in ids(popular) if item not in shares][: len(rest)]
        assert all(-2 <= item.score <= -1 for item in made.items[len(voted) :])


def test_items_of_friends_and_of_like_entities_stand_between_the_neighbors_and_the_popular_ones():
    state = folded(("bob", "ax"), ("cid", "f"), ("dan", "ppp"), ("eve", "e"), ("ann", "a"))
    related = [
        Line("ann", "", "", 1, NOW_MS, 0, 100, target="cid"),
        Line("", "", "a", 2, NOW_MS, 0, 101, target="brand"),
        Line("", "", "e", 2, NOW_MS, 0, 102, target="brand"),
    ]
    state.fold(batch(related))
    (made,) = lists(state, Query("ann", "", 5))
    assert ids(made)[0] == "x" and set(ids(made)[1:3]) == {"f", "e"} and ids(made)[3] == "p"
    assert made.items[0].score > 0 > made.items[1].score >= made.items[2].score > -1 > made.items[3].score
    sources = {item.item_id: item.sources for item in made.items}
    assert sources["f"] == (Source.FRIEND,) and sources["e"] == (Source.ENTITY,)


def test_who_is_known_and_of_whom_nothing_follows_gets_the_list_of_popularity():
    state = folded(("bob", "xy"), ("ann", "z"))
    (made,), (popular,) = lists(state, Query("ann", "", 3)), lists(state, Query("nobody", "", 3))
    assert made.items == popular.items and made.origin == Origin.POPULARITY


def test_a_neighbor_that_may_not_be_shown_gives_its_place_to_the_next_one():
    gone = [CatalogItem("x", deleted=True), CatalogItem("y", categories=("c",)), CatalogItem("w", categories=("c",))]
    state = folded(("bob", "axyb"), ("bob", "aw"), ("ann", "a"), items=gone)
    assert "x" not in ids(lists(state, Query("ann", "", 3))[0])
    (made,) = lists(state, Query("ann", "", 5, categories=("c",)))
    assert ids(made) == ["w", "y"] and [made.items[0].score > 0, made.items[1].score > 0] == [True, False]
    (made,) = lists(state, Query("ann", "", 5, exclude_history=True, exclude_item_ids=("w",)))
    assert not {"a", "w", "x"} & set(ids(made))


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
