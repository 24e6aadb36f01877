"""What a refresh recomputes at once, and what it leaves to later steps."""

from __future__ import annotations

import torch

from engine.config import EventsConfig, InferenceConfig, StateConfig
from engine.events.batch import CatalogItem
from engine.inference.embedder import Embedder
from engine.state.state import State
from tests.engine.logs import Row, decoded
from tests.engine.models import CONTENT_DIM, small_weights

ITEMS = ["x", "y", "z"]


def world(rows: list[Row], **config: float) -> tuple[State, Embedder]:
    """A state that has folded `rows`, and an embedder up to date with all but the last."""
    state = State(StateConfig(history=8, neighbors=3, content_dim=CONTENT_DIM), EventsConfig())
    weights = small_weights(ITEMS)
    embedder = Embedder(weights.model, weights.vocabulary, InferenceConfig(**config), state.user_rows, state.item_rows)
    state.fold(decoded(rows[:-1]))
    embedder.build(state.graph, state.items.ids(), state.catalog.contents(), state.users())
    return state, embedder


def refresh(state: State, embedder: Embedder, row: Row, offset: int) -> list[str]:
    folded = state.fold(decoded([row], offset))
    rows = embedder.refresh(state.graph, state.items.ids(), state.catalog.contents(), folded)
    return sorted(state.items.id_of(at) for at in rows.tolist())


LOG: list[Row] = [("ann", "s", "z", 7, 0), ("ann", "s", "x", 7, 1), ("ann", "s", "y", 7, 2)]


def test_an_event_refreshes_its_item_and_the_one_before_at_once():
    state, embedder = world(LOG, epsilon=2.0)
    assert refresh(state, embedder, LOG[-1], 2) == ["x", "y"]
    fresh = Embedder(small_weights(ITEMS).model, ITEMS, InferenceConfig(), state.user_rows, state.item_rows)
    fresh.build(state.graph, state.items.ids(), state.catalog.contents(), state.users())
    at = state.items.find(["x", "y"])
    assert torch.allclose(embedder.items[at], fresh.items[at], atol=1e-6)


def test_a_user_that_moved_less_than_epsilon_does_not_spread():
    state, embedder = world(LOG, epsilon=2.0)
    refresh(state, embedder, LOG[-1], 2)
    assert embedder.backlog == 0 and len(embedder.spread(state.graph)) == 0


def test_a_user_that_moved_reaches_its_other_items_a_few_at_a_time():
    state, embedder = world(LOG, epsilon=0.0, spread_rows=2)
    refresh(state, embedder, LOG[-1], 2)
    reached = [embedder.spread(state.graph).tolist() for _ in range(3)]
    assert [len(rows) for rows in reached] == [2, 1, 0]
    assert sorted(reached[0] + reached[1]) == state.items.find(ITEMS).sort().values.tolist()
    assert embedder.backlog == 0


def test_those_who_had_an_item_follow_its_new_record_a_few_at_a_time_and_before_any_item():
    log: list[Row] = [(user, "s", "x", 7, at) for at, user in enumerate(["ann", "bob", "cid", "ann"])]
    state, embedder = world(log, epsilon=0.0, spread_rows=2)
    refresh(state, embedder, log[-1], 3)
    while embedder.backlog:
        embedder.spread(state.graph)
    users, before = state.users(), embedder.users.clone()
    folded = state.fold(decoded([], 4, [CatalogItem("x", "milk")]))
    embedder.refresh(state.graph, state.items.ids(), state.catalog.contents(), folded)
    moved = lambda: int((embedder.users[users] != before[users]).any(dim=1).sum())  # noqa: E731
    reached = [(moved(), embedder.backlog)]
    while embedder.backlog:
        items = embedder.spread(state.graph).tolist()
        reached.append((moved(), len(items)))
    assert [count for count, _ in reached[:3]] == [0, 2, 3]
    assert reached[1][1] == 0  # all of the step went to users
    full = Embedder(small_weights(ITEMS).model, ITEMS, InferenceConfig(), state.user_rows, state.item_rows)
    full.build(state.graph, state.items.ids(), state.catalog.contents(), users)
    assert torch.allclose(embedder.users[users], full.users[users], atol=1e-6)
    assert torch.allclose(embedder.items, full.items, atol=1e-6)


def test_a_record_that_leaves_the_content_as_it_was_reaches_nobody_however_its_product_rounds(monkeypatch):
    """A product of one row may round otherwise than that of all rows of a build, which is no change."""
    log: list[Row] = [(user, "s", "x", 7, at) for at, user in enumerate(["ann", "bob", "cid", "ann"])]
    state, embedder = world(log, epsilon=0.0)
    refresh(state, embedder, log[-1], 3)
    while embedder.backlog:
        embedder.spread(state.graph)
    plain, base = embedder._model.base, embedder.base.clone()
    monkeypatch.setattr(embedder._model, "base", lambda word, content: plain(word, content) + 1e-6)
    folded = state.fold(decoded([], 4, [CatalogItem("x")]))
    assert len(folded.catalog) == 1
    embedder.refresh(state.graph, state.items.ids(), state.catalog.contents(), folded)
    assert embedder.backlog == 0
    assert torch.equal(embedder.base, base)  # so that many of them do not add up
