"""Lists by what the user had most often, against counting by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ranking.asked import Asked
from engine.ranking.frequency import by_frequency
from engine.ranking.moment import Now
from engine.ranking.query import Origin, Query, Source
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch, numbered
from tests.engine.worlds import NOW_MS, small_config

CONFIG = small_config()
DAY_MS = 24 * HOUR_MS


def listed(state: State, query: Query):
    (made,) = by_frequency(Asked.of([query], state, CONFIG.ranking), Now(state, NOW_MS), CONFIG.ranking)
    return made


def folded(*events: tuple[str, str, int]) -> State:
    state = State(CONFIG.state, CONFIG.events)
    state.fold(batch(numbered([Line(user, "", item, 0, NOW_MS + day * DAY_MS) for user, item, day in events])))
    return state


@settings(max_examples=50, deadline=None)
@given(
    own=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 90)), min_size=1, max_size=8),
    others=st.lists(st.sampled_from("cdef"), max_size=6),
)
def test_scores_are_own_events_halved_in_sixty_days_and_a_hundred_shares_of_popularity(
    own: list[tuple[str, int]], others: list[str]
) -> None:
    days = sorted(day for _, day in own)
    events = [("ann", item, day) for (item, _), day in zip(own, days, strict=True)]
    state = folded(*(("bob", item, 0) for item in others), *events)
    made = listed(state, Query("ann", "", 20))
    share = dict(zip(state.items.ids(), state.popularity.share().tolist(), strict=False))
    want = {
        item: 100 * share[item] + sum(0.5 ** ((days[-1] - day) / 60) for _, had, day in events if had == item)
        for item in share
    }
    items = made.page.items(state)
    assert {item.item_id: item.score for item in items} == pytest.approx(want)
    assert [item.score for item in items] == sorted((item.score for item in items), reverse=True)
    assert made.origin == Origin.FREQUENCY


def test_what_may_not_be_listed_is_not_and_an_unknown_user_gets_what_is_popular() -> None:
    state = folded(("bob", "x", 0), ("ann", "a", 0), ("ann", "a", 0), ("ann", "b", 0))
    ids = [item.item_id for item in listed(state, Query("ann", "", 2)).page.items(state)]
    assert ids == ["a", "b"] or ids[0] == "a"
    made = listed(state, Query("ann", "", 4, exclude_item_ids=("a",)))
    assert "a" not in [item.item_id for item in made.page.items(state)]
    only = listed(state, Query("ann", "", 4, exclude_history=True))
    assert [item.item_id for item in only.page.items(state)] == ["x"] and only.origin == Origin.POPULARITY
    nobody = listed(state, Query("nobody", "", 4))
    assert nobody.origin == Origin.POPULARITY and len(nobody.page.row) == 3


def test_sources_say_that_an_item_is_of_the_history() -> None:
    state = folded(("bob", "x", 0), ("ann", "a", 0))
    sources = {item.item_id: item.sources for item in listed(state, Query("ann", "", 4)).page.items(state)}
    assert sources == {"a": (Source.HISTORY,), "x": (Source.POPULAR,)}
