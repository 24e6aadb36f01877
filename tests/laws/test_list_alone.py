"""Law 5: a list made alone equals the same list made in a batch with any others, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import RankingConfig
from engine.events.batch import CatalogItem
from engine.generation import Generation
from engine.ranking import recommender
from engine.ranking.query import Query
from engine.ranking.recommender import recommend
from engine.ranking.side_by_side import SideBySide
from engine.state.state import State
from tests.engine.logs import Line, batch, decoded
from tests.engine.worlds import ITEMS, NOW_MS, USERS, small_config, small_generation, small_state

NARROW = RankingConfig(
    index_candidates=2, popular_candidates=2, neighbor_sources=1, friend_candidates=2, entity_candidates=2
)
CONFIG = small_config()

queries = st.builds(
    Query,
    st.sampled_from([*USERS, "nobody"]),
    st.just(""),
    st.integers(1, 40),
    exclude_history=st.booleans(),
    categories=st.sampled_from([(), (), ("c1",), ("c0", "c2"), ("never",)]),
    exclude_item_ids=st.lists(st.sampled_from([*ITEMS, "never"]), max_size=12).map(tuple),
)


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[State, Generation]]:
    """A state with relations in which some items may not be shown, and a model."""
    state = small_state(CONFIG)
    generation = small_generation(CONFIG, state)
    lines = [Line("u1", target="u2"), Line("u2", target="u3"), Line(item=ITEMS[3], target="Ford")]
    lines += [Line(item=item, target="Ford") for item in ITEMS[10:20]]
    told = [line._replace(offset=80 + at, time_ms=NOW_MS + at) for at, line in enumerate(lines)]
    generation.follow(state, state.fold(batch(told)))
    gone = [CatalogItem(item, deleted=True) for item in ITEMS[::7]]
    generation.follow(state, state.fold(decoded([], items=[*gone, CatalogItem(ITEMS[5], available_until_ms=1)])))
    yield state, generation


@pytest.fixture(scope="module", params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[SideBySide]:
    made = SideBySide(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("modelled", [True, False])
@settings(max_examples=100, deadline=None)
@given(asked=st.lists(queries, min_size=1, max_size=14))
def test_a_list_made_alone_equals_the_same_list_made_with_any_others(
    world: tuple[State, Generation], threads: SideBySide, modelled: bool, asked: list[Query]
) -> None:
    state, generation = world[0], world[1] if modelled else None
    with patch.object(recommender.time, "time", lambda: NOW_MS / 1000):
        together = recommend(asked, state, generation, NARROW, threads=threads)
        for query, ranking in zip(asked, together, strict=True):
            (alone,) = recommend([query], state, generation, NARROW)
            assert alone == ranking
            assert alone.basis is not None and ranking.basis is not None
            plain = replace(alone.basis, query=query)
            for name in ("rows", "low", "high", "vector", "floor", "scale", "last", "popular"):
                np.testing.assert_array_equal(getattr(plain, name), getattr(ranking.basis, name))
