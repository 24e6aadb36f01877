"""A generation is computed aside from a copy, and follows the state from then on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.events.batch import CatalogItem
from engine.generation import Frozen, check_fits
from engine.model.weights import WeightsError
from engine.state.state import Folded
from tests.engine.logs import decoded
from tests.engine.models import small_weights
from tests.engine.worlds import ITEMS, purchases, small_config, small_generation, small_state

CONFIG = small_config()


def test_what_is_folded_during_a_build_is_caught_up_in_one_go():
    state = small_state(CONFIG, events=40)
    log = purchases(80)
    generation = small_generation(CONFIG, state)
    missed = [state.fold(decoded(log[40:60], 40)), state.fold(decoded(log[60:], 60))]
    generation.follow(state, Folded.joined(missed))
    while generation.embedder.backlog:
        generation.spread(state)
    fresh = small_generation(CONFIG, state)
    items = len(state.items)
    assert torch.allclose(generation.embedder.items[:items], fresh.embedder.items[:items], atol=1e-5)
    query = fresh.embedder.items[:1].numpy()
    assert np.allclose(generation.index.search(query, 10).score, fresh.index.search(query, 10).score, atol=1e-5)


def test_a_deleted_item_leaves_the_index_and_comes_back_with_a_later_record():
    state = small_state(CONFIG)
    generation = small_generation(CONFIG, state)
    row = state.items.get("i05")
    query = generation.embedder.items[row][None].numpy()
    generation.follow(state, state.fold(decoded([], items=[CatalogItem("i05", deleted=True)])))
    assert row not in generation.index.search(query, 30).row
    generation.follow(state, state.fold(decoded([], items=[CatalogItem("i05", "back")])))
    assert row in generation.index.search(query, 30).row


def test_an_item_deleted_before_the_build_is_not_in_the_index():
    state = small_state(CONFIG)
    state.fold(decoded([], items=[CatalogItem("i05", deleted=True)]))
    assert small_generation(CONFIG, state).index.size == len(ITEMS) - 1


def test_the_copy_does_not_see_later_events():
    state = small_state(CONFIG, events=40)
    frozen = Frozen.of(state)
    before = frozen.graph.user_items.latest(frozen.users)
    state.fold(decoded(purchases(80)[40:], 40, items=[CatalogItem("i99")]))
    after = frozen.graph.user_items.latest(frozen.users)
    assert all(torch.equal(old, new) for old, new in zip(before.columns(), after.columns(), strict=True))
    assert len(frozen.item_ids) == len(ITEMS)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"content_dim": 7}, r"content_dim must be 16 .* got 7"),
        ({"kinds": 3}, r"kinds must be >= 8 .* got 3"),
        ({"window": 9}, r"window must be <= 8 .* got 9"),
    ],
)
def test_a_model_that_does_not_fit_the_state_is_refused_with_the_reason(shape, reason):
    with pytest.raises(WeightsError, match=reason):
        check_fits(small_weights(ITEMS, **shape), CONFIG)


def test_the_index_is_measured_with_the_sessions_of_users(monkeypatch: pytest.MonkeyPatch):
    state, given = small_state(CONFIG), []
    monkeypatch.setattr(
        "engine.generation.LiveIndex.build",
        lambda rows, vectors, config, stopped, queries, threads: given.append(queries),
    )
    generation = small_generation(CONFIG, state)
    users = state.users()
    sequence = generation.model.sequence
    with torch.inference_mode():
        want = sequence.latest(generation.embedder.items, state.graph.user_items.latest(users)).numpy()
    assert len(users) < 64
    np.testing.assert_allclose(given[0], want, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_in_fewer_bits_sessions_are_encoded_to_nearly_the_same(precision):
    state = small_state(CONFIG)
    fewer = CONFIG.model_copy(update={"inference": CONFIG.inference.model_copy(update={"precision": precision})})
    exact, served = small_generation(CONFIG, state), small_generation(fewer, state)
    users = state.users().numpy()
    got, expected = (torch.from_numpy(one.encoded(users, state.remembered(users.tolist()))) for one in (served, exact))
    assert (torch.cosine_similarity(got, expected) > 0.99).all() and not torch.equal(got, expected)
    assert torch.equal(served.embedder.items, exact.embedder.items)
