"""Lists from a small world, against scoring every item by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.events.batch import CatalogItem
from engine.model.ranker import candidate_features
from engine.ranking.query import Origin, Query, Source
from engine.ranking.recommender import recommend
from tests.engine.logs import decoded
from tests.engine.worlds import ITEMS, small_config, small_generation, small_state

CONFIG = small_config()


@pytest.fixture
def state():
    return small_state(CONFIG)


def ask(state, generation, *queries):
    return recommend(queries, state, generation, CONFIG.ranking)


def by_hand(state, generation, user_id):
    """Every item's id by score: all of them are candidates of so small a catalog."""
    rows = torch.arange(len(state.items))[None]
    user = torch.tensor(state.find_users([user_id]))
    history = state.graph.user_items.latest(user)
    model, table = generation.model, generation.embedder.items[: len(state.items)]
    with torch.no_grad():
        query = model.sequence(table, history.last(model.shape.window))[0, -1]
        last = [row for row in history.row[0, -CONFIG.ranking.neighbor_sources :].tolist() if row >= 0]
        following = torch.cat([state.graph.item_next.latest(torch.tensor([row])).row for row in last], dim=1)
        share = torch.from_numpy(state.popularity.share())[None]
        score = model.ranker(model.logits(table @ query)[None], candidate_features(rows, history, following, share))[0]
    return [state.items.id_of(row) for row in np.argsort(-score.numpy(), kind="stable")], score


def test_a_known_user_gets_the_models_order(state):
    generation = small_generation(CONFIG, state, version=3)
    (ranking,) = ask(state, generation, Query("u1", "", k=30))
    want, score = by_hand(state, generation, "u1")
    assert [item.item_id for item in ranking.items] == want
    assert [item.score for item in ranking.items] == pytest.approx(sorted(score.tolist(), reverse=True), abs=1e-4)
    assert (ranking.origin, ranking.known, ranking.model_version) == (Origin.MODEL, True, 3)
    assert ranking.items[0].title == f"Title of {ranking.items[0].item_id}"
    assert [(at.topic, at.partition, at.offset) for at in ranking.reflects] == [("ousel.events", 0, 79)]


def test_a_batch_answers_each_query_as_if_it_were_alone(state):
    generation = small_generation(CONFIG, state)
    queries = [Query("u1", "", 5), Query("nobody", "", 4), Query("u2", "", 30, categories=("c1",)), Query("u3", "", 2)]
    together = ask(state, generation, *queries)
    for query, ranking in zip(queries, together, strict=True):
        (alone,) = ask(state, generation, query)
        assert [item.item_id for item in alone.items] == [item.item_id for item in ranking.items]
        assert alone.origin == ranking.origin


def test_without_a_model_popularity_answers_and_says_so(state):
    (ranking,) = ask(state, None, Query("u1", "", k=4))
    assert [item.item_id for item in ranking.items] == [state.items.id_of(row) for row in state.popularity.top(4)]
    assert (ranking.origin, ranking.known, ranking.model_version) == (Origin.POPULARITY, True, 0)
    assert all(item.sources == (Source.POPULAR,) for item in ranking.items)


def test_an_unknown_user_is_answered_with_what_is_popular(state):
    (ranking,) = ask(state, small_generation(CONFIG, state, version=2), Query("nobody", "", k=4))
    assert [item.item_id for item in ranking.items] == [state.items.id_of(row) for row in state.popularity.top(4)]
    assert (ranking.origin, ranking.known, ranking.model_version) == (Origin.POPULARITY, False, 2)


def test_user_and_session_of_the_same_name_are_two_subjects(state):
    (ranking,) = ask(state, None, Query("", "u1", k=4))
    assert not ranking.known


@pytest.mark.parametrize("modelled", [True, False])
def test_filters_hold_with_and_without_a_model(state, modelled):
    generation = small_generation(CONFIG, state) if modelled else None
    history = set(state.graph.user_items.latest(torch.tensor(state.find_users(["u1"]))).row[0].tolist())
    remembered = {state.items.id_of(row) for row in history if row >= 0}

    def listed(**options):
        (ranking,) = ask(state, generation, Query("u1", "", 30, **options))
        return {item.item_id for item in ranking.items}

    assert listed() == set(ITEMS)
    assert listed(exclude_history=True) == set(ITEMS) - remembered
    assert listed(exclude_item_ids=("i00", "i07", "never")) == set(ITEMS) - {"i00", "i07"}
    assert listed(categories=("c1",)) == {item for item in ITEMS if int(item[1:]) % 3 == 1}
    assert listed(categories=("never",)) == set()


@pytest.mark.parametrize("modelled", [True, False])
def test_a_deleted_or_expired_item_is_never_listed_from_the_moment_it_is_folded(state, modelled):
    generation = small_generation(CONFIG, state) if modelled else None
    gone = [CatalogItem("i01", deleted=True), CatalogItem("i02", available_until_ms=1), CatalogItem("i03", "back")]
    state.fold(decoded([], items=[CatalogItem("i03", deleted=True), *gone]))
    (ranking,) = ask(state, generation, Query("u1", "", 30))
    assert {item.item_id for item in ranking.items} == set(ITEMS) - {"i01", "i02"}


def test_an_item_says_all_sources_that_proposed_it(state):
    generation = small_generation(CONFIG, state)
    (ranking,) = ask(state, generation, Query("u1", "", 30))
    history = {
        row for row in state.graph.user_items.latest(torch.tensor(state.find_users(["u1"]))).row[0].tolist() if row >= 0
    }
    for item in ranking.items:
        assert (Source.HISTORY in item.sources) == (state.items.get(item.item_id) in history)
        assert Source.INDEX in item.sources  # 200 hits are asked of 30 items


def test_an_empty_engine_answers_with_an_empty_list():
    from engine.state.state import State

    (ranking,) = ask(State(CONFIG.state, CONFIG.events), None, Query("u1", "", 5))
    assert ranking.items == () and not ranking.known and ranking.reflects == ()
