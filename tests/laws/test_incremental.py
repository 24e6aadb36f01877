"""Law 3: with epsilon 0, embeddings after any sequence of batches equal a full recompute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EventsConfig, InferenceConfig, StateConfig
from engine.events.batch import CatalogItem
from engine.inference.embedder import Embedder
from engine.state.state import State
from tests.engine.logs import HOUR_MS, cut, decoded
from tests.engine.models import CONTENT_DIM, small_weights

ITEMS = ["x", "y", "z", "w"]
CONFIG = StateConfig(history=4, neighbors=3, content_dim=CONTENT_DIM)
rows = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cid"]),
        st.sampled_from(["s1", "s2"]),
        st.sampled_from(ITEMS),
        st.integers(0, 7),
        st.integers(0, 100 * HOUR_MS),
    ),
    min_size=1,
    max_size=30,
)
catalog = st.lists(
    st.builds(CatalogItem, st.sampled_from(ITEMS), st.sampled_from(["milk", "bread"]), deleted=st.booleans()),
    max_size=3,
)


@pytest.mark.parametrize("aggregation", ["attention", "mean", "sum"])
@given(log=rows, lengths=st.lists(st.integers(0, 6), max_size=6), late=catalog, spread_rows=st.integers(1, 5))
def test_refreshed_rows_equal_a_full_recompute(aggregation, log, lengths, late, spread_rows):
    state = State(CONFIG, EventsConfig())
    weights = small_weights(ITEMS[:3], aggregation=aggregation)
    config = InferenceConfig(epsilon=0.0, spread_rows=spread_rows)
    live = Embedder(weights.model, weights.vocabulary, config, state.user_rows, state.item_rows)
    for batch in [*cut(log, lengths), decoded([], items=late)]:
        folded = state.fold(batch)
        live.refresh(state.graph, state.items.ids(), state.catalog.contents(), folded)
        live.spread(state.graph)
    while live.backlog:
        live.spread(state.graph)
    full = Embedder(weights.model, weights.vocabulary, config, state.user_rows, state.item_rows)
    full.build(state.graph, state.items.ids(), state.catalog.contents(), state.users())
    for name, count in (("items", len(state.items)), ("base", len(state.items)), ("users", state.user_count)):
        got, want = getattr(live, name)[:count], getattr(full, name)[:count]
        assert torch.allclose(got, want, atol=1e-5), name
