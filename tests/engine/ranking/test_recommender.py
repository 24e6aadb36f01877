"""Lists from a small world, against scoring every item by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.config import RankingConfig
from engine.events.batch import CatalogItem
from engine.features.live import Askers, Rings
from engine.features.table import Crowd, features_of
from engine.features.votes import count_votes, read_voters
from engine.generation import Frozen, build_generation
from engine.ranking.query import Origin, Query, Source
from engine.ranking.recommender import recommend
from tests.engine.logs import HOUR_MS, Line, batch, decoded
from tests.engine.models import small_weights
from tests.engine.worlds import ITEMS, NOW_MS, small_config, small_generation, small_state

CONFIG = small_config()


@pytest.fixture
def state():
    return small_state(CONFIG)


def ask(state, generation, *queries):
    return recommend(queries, state, generation, CONFIG.ranking)


def number_of(state):
    return torch.tensor([1 + ITEMS.index(item) if item in ITEMS else 0 for item in state.items.ids()])


def by_hand(state, generation, user_id, goal=None):
    """Every item's id by score: all of them are candidates of so small a catalog."""
    rows = torch.arange(len(state.items))[None]
    user = torch.tensor(state.find_users([user_id]))
    history = state.graph.user_items.latest(user)
    model, table = generation.model, generation.embedder.items[: len(state.items)]
    with torch.no_grad():
        query = model.sequence(table, history, goal)[0, -1]
        last = [row for row in history.row[0, -CONFIG.ranking.neighbor_sources :].tolist() if row >= 0]
        following = torch.cat([state.graph.item_next.latest(torch.tensor([row])).row for row in last], dim=1)
        share = state.popularity.share()[None]
        counts = torch.stack([torch.from_numpy(state.decayed_counts(rows[0].numpy(), h)) for h in (1, 2)], dim=-1)
        trend = (counts / counts[state.popularity.top(CONFIG.ranking.popular_candidates)].sum(0)).float()[None]
        askers = Askers.of(user.numpy(), history.arrays(), state.newest_ms)
        votes = count_votes(read_voters(askers, Rings.of(state.graph)), rows.numpy())
        habit = model.habit[number_of(state)][None].numpy()
        crowd = Crowd(following.numpy(), share, trend.numpy(), votes, habit)
        features = features_of(rows.numpy(), askers, crowd, state.catalog.group)
        score = model.ranker(model.logits(table @ query)[None], torch.from_numpy(features))[0]
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


def test_a_configured_goal_is_what_the_model_is_asked_for(state):
    config = CONFIG.model_copy(update={"ranking": RankingConfig(goal="cart")})
    kind = list(config.events.kinds).index("cart")
    weights = small_weights(ITEMS, by_kind=True)
    weights.model.sequence.goal.weight[kind] *= 10  # so that it matters
    generation = build_generation(weights, 1, {}, Frozen.of(state), config)
    (ranking,) = ask(state, generation, Query("u1", "", k=30))
    want, _ = by_hand(state, generation, "u1", kind)
    assert [item.item_id for item in ranking.items] == want != by_hand(state, generation, "u1")[0]


def test_a_batch_answers_each_query_as_if_it_were_alone(state):
    generation = small_generation(CONFIG, state)
    queries = [Query("u1", "", 5), Query("nobody", "", 4), Query("u2", "", 30, categories=("c1",)), Query("u3", "", 2)]
    together = ask(state, generation, *queries)
    for query, ranking in zip(queries, together, strict=True):
        (alone,) = ask(state, generation, query)
        assert alone.items == ranking.items  # their scores as well, bit for bit
        assert alone.origin == ranking.origin


def test_without_a_model_covisitation_answers_known_users_and_popularity_all_others_and_they_say_so(state):
    known, unknown = ask(state, None, Query("u1", "", k=4), Query("nobody", "", k=4))
    assert (known.origin, known.known, known.model_version) == (Origin.COVISITATION, True, 0)
    assert [item.item_id for item in unknown.items] == [state.items.id_of(row) for row in state.popularity.top(4)]
    assert (unknown.origin, unknown.known, unknown.model_version) == (Origin.POPULARITY, False, 0)
    assert all(item.sources == (Source.POPULAR,) for item in unknown.items)


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


def narrow(**sources: int):
    """Few candidates of the old sources, so that those of relations show."""
    ranking = CONFIG.ranking.model_copy(update={"index_candidates": 1, "popular_candidates": 1, "neighbor_sources": 1})
    return ranking.model_copy(update=sources)


def with_relations(state, *relations: Line):
    state.fold(batch([line._replace(offset=80 + at, time_ms=NOW_MS + at) for at, line in enumerate(relations)]))
    return state


def sources_of(state, generation, user: str, ranking) -> dict[str, tuple[Source, ...]]:
    (found,) = recommend([Query(user, "", 1)], state, generation, ranking)
    (whole,) = recommend([Query(user, "", 30)], state, generation, ranking)
    assert found.items[0].item_id in {item.item_id for item in whole.items}
    return {item.item_id: item.sources for item in whole.items}


def last_items(state, user: str) -> list[str]:
    (row,) = state.find_users([user])
    rows = [row for row in state.histories([row]).row[0].tolist() if row >= 0]
    return [state.items.id_of(row) for row in reversed(rows)]


@pytest.mark.parametrize("limit", [0, 1, 3, 50])
def test_the_latest_items_of_friends_are_proposed_the_closest_friends_first(state, limit):
    generation = small_generation(CONFIG, state)
    with_relations(state, Line("u1", target="u2", value=2.0), Line("u1", target="nobody"), Line("u1", target="u3"))
    two, three = last_items(state, "u2"), last_items(state, "u3")
    in_turn = [item for at in range(8) for items in (two, three) for item in items[at : at + 1]]
    want = [*dict.fromkeys(in_turn)][:limit]
    found = sources_of(state, generation, "u1", narrow(friend_candidates=limit, entity_candidates=0))
    assert {item for item, sources in found.items() if Source.FRIEND in sources} == set(want)
    assert not any(Source.ENTITY in sources for sources in found.values())
    nothing_of_friends = sources_of(state, generation, "u4", narrow(friend_candidates=limit))
    assert not any(Source.FRIEND in sources for sources in nothing_of_friends.values())


def hide(state, generation, items):
    """These items are deleted, so that they are in no list."""
    generation.follow(state, state.fold(decoded([], items=[CatalogItem(item, deleted=True) for item in items])))


def test_items_that_may_not_be_shown_take_no_place_among_those_of_friends():
    state = small_state(CONFIG)
    generation = small_generation(CONFIG, state)
    with_relations(state, Line("u1", target="u2"), Line("u1", target="u3"))
    two, three = last_items(state, "u2"), last_items(state, "u3")
    in_turn = [*dict.fromkeys(item for at in range(8) for items in (two, three) for item in items[at : at + 1])]
    hide(state, generation, in_turn[:4])
    found = sources_of(state, generation, "u1", narrow(friend_candidates=2, entity_candidates=0))
    assert {item for item, sources in found.items() if Source.FRIEND in sources} == {*in_turn[4:6]}


def test_items_that_may_not_be_shown_take_no_place_among_those_with_the_same_entity():
    state = small_state(CONFIG)
    generation = small_generation(CONFIG, state)
    last, *earlier = last_items(state, "u1")
    others = [item for item in ITEMS if item not in (last, *earlier)][:6]
    with_relations(state, Line(item=last, target="Ford"), *(Line(item=item, target="Ford") for item in others))
    hide(state, generation, others[2:])  # the newest
    found = sources_of(state, generation, "u1", narrow(entity_candidates=2))
    assert {item for item, sources in found.items() if Source.ENTITY in sources} == {*others[:2]}


def test_items_that_may_not_be_shown_take_no_place_among_popular_items_nor_among_those_of_the_index():
    state = small_state(CONFIG)
    generation = small_generation(CONFIG, state)
    ranking = narrow(neighbor_sources=0)
    for _ in range(4):
        (found,) = recommend([Query("u1", "", 1)], state, generation, ranking)
        basis = found.basis
        rows = np.arange(len(state.items))
        live = rows[state.availability.now(rows)]
        cosine = generation.embedder.items.numpy()[live] @ basis.vector
        nearest = live[cosine.argmax()]
        popular = min(live.tolist(), key=lambda row: (-state.popularity.score[row], row))
        assert {int(nearest), popular} <= set(basis.rows.tolist())
        hide(state, generation, {state.items.id_of(nearest), state.items.id_of(popular)})


def test_a_popularity_list_longer_than_the_ready_list_goes_on_with_all_others():
    config = CONFIG.model_copy(update={"state": CONFIG.state.model_copy(update={"popular": 5})})
    state = small_state(config, events=20)
    state.fold(decoded([], items=[CatalogItem("new0"), CatalogItem("new1")]))
    score = dict(zip(state.items.ids(), state.popularity.score.tolist(), strict=False))
    best = sorted(score, key=lambda item: (-score[item], state.items.get(item)))
    (ranking,) = recommend([Query("nobody", "", 20)], state, None, config.ranking)
    assert [item.item_id for item in ranking.items] == best[:20]
    assert [item.sources for item in ranking.items] == [(Source.POPULAR,)] * 5 + [(Source.BACKFILL,)] * 15
    (ranking,) = recommend([Query("nobody", "", 3, exclude_item_ids=tuple(best[1:7]))], state, None, config.ranking)
    assert [item.item_id for item in ranking.items] == [best[0], *best[7:9]]


def test_an_item_whose_events_count_nothing_any_more_goes_before_one_that_has_had_none():
    state = small_state(CONFIG, events=0)
    state.fold(batch([Line("u1", item=ITEMS[20], kind=7, time_ms=0)]))
    later = NOW_MS + 2000 * 7 * 24 * HOUR_MS
    more = [Line("u2", item=ITEMS[5], kind=7, time_ms=later + at, offset=1 + at, event_id=f"m{at}") for at in range(4)]
    state.fold(batch(more))
    (ranking,) = recommend([Query("nobody", "", 4)], state, None, CONFIG.ranking)
    assert [item.item_id for item in ranking.items] == [ITEMS[5], ITEMS[20], ITEMS[0], ITEMS[1]]
    assert ranking.items[1].score == pytest.approx(0)


@pytest.mark.parametrize("limit", [0, 2, 50])
def test_items_that_share_an_entity_with_the_last_items_are_proposed(state, limit):
    generation = small_generation(CONFIG, state)
    last, *earlier = last_items(state, "u1")
    others = [item for item in ITEMS if item not in (last, *earlier)][:4]
    with_relations(
        state, Line(item=last, target="Ford"), *(Line(item=item, target="Ford") for item in others[:3]),
        Line(item=others[3], target="Opel"),
    )  # fmt: skip
    found = sources_of(state, generation, "u1", narrow(entity_candidates=limit))
    want = [*reversed(others[:3])][:limit]
    assert {item for item, sources in found.items() if Source.ENTITY in sources} == set(want)


def test_relations_of_others_change_no_list(state):
    generation = small_generation(CONFIG, state)
    before = [ask(state, generation, Query(user, "", 30))[0].items for user in ("u1", "u2", "u3")]
    with_relations(state, Line("u5", target="u1"), Line(item="far away", target="Ford"))
    after = [ask(state, generation, Query(user, "", 30, exclude_item_ids=("far away",)))[0].items for user in
             ("u1", "u2", "u3")]  # fmt: skip
    assert after == before


def test_a_user_who_has_only_friends_gets_their_items_from_the_model(state):
    generation = small_generation(CONFIG, state)
    with_relations(state, Line("new", target="u2"))
    (ranking,) = ask(state, generation, Query("new", "", 30))
    assert ranking.known and ranking.origin == Origin.MODEL
    of_friends = {item.item_id for item in ranking.items if Source.FRIEND in item.sources}
    assert of_friends == set(last_items(state, "u2"))
    assert all(np.isfinite(item.score) for item in ranking.items)


def test_a_deleted_item_of_a_friend_is_not_listed(state):
    generation = small_generation(CONFIG, state)
    gone = last_items(state, "u2")[0]
    with_relations(state, Line("u1", target="u2"))
    state.fold(decoded([], items=[CatalogItem(gone, deleted=True)]))
    (ranking,) = ask(state, generation, Query("u1", "", 30))
    assert gone not in {item.item_id for item in ranking.items}
