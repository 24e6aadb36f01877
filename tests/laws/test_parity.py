"""Law 6: what the trainer computes from its own store equals the plain forward over the engine's state of the same log.

The two number users and items differently, so embeddings are compared by item id and histories by user.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.config import StateConfig
from engine.events.batch import Decoded
from engine.model.gnn import USER_NEIGHBORS
from engine.model.recommender import ModelShape, Recommender
from engine.state.state import State
from tests.trainer.planted import BEGIN_MS, KINDS, PAIRS, planted_log, replayed
from trainer.dataset import Histories
from trainer.forward import ItemForward
from trainer.live_fold import insert
from trainer.replay import Replay
from trainer.train import words
from trainer.walk import empty_graph

WINDOW = 8
VOCABULARY = [f"{side}{pair}" for pair in range(0, PAIRS, 2) for side in "AB"]  # every other pair has learned ids


def spread(log: Decoded, partitions: int) -> Decoded:
    """The same log with each user's events in one of several partitions."""
    partition = np.array([int(user[1:]) % partitions for user in log.events.user_id], dtype=np.int32)
    columns = {name: getattr(log.events, name) for name in log.events.__dataclass_fields__}
    events = type(log.events)(**columns | {"partition": partition})
    positions = {("ousel.events", at): len(events) for at in range(partitions)} | {("ousel.items", 0): 1}
    return Decoded(events, log.items, [], positions)


def folded(events: int, seed: int, partitions: int) -> Replay:
    config = StateConfig(history=16, neighbors=4, content_dim=16, max_users=90)
    replay = Replay(config, KINDS, 100_000, partitions=partitions)
    replay.fold(spread(planted_log(events, seed), partitions))
    return replay


def model_of(seed: int, **switches: Any) -> Recommender:
    torch.manual_seed(seed)
    shape = ModelShape(
        vocabulary=len(VOCABULARY), content_dim=16, kinds=8, dim=16, heads=2, blocks=1, window=WINDOW, **switches
    )  # fmt: skip
    model = Recommender(shape).eval().requires_grad_(False)
    for bias in (model.graph.user_root, model.graph.edge.scale.weight):
        torch.nn.init.normal_(bias)  # zero at the start, and then nothing would be seen of them
    return model


def engine_table(model: Recommender, state: State) -> Tensor:
    """[N, d] embeddings by row of the state, layer by layer over full tables."""
    graph, everything, known = state.graph, torch.arange(len(state.items)), state.users()
    base = model.graph.base(words(state.items.ids(), VOCABULARY), state.catalog.contents())
    users = base[:1].expand(max(1, state.user_rows), -1).clone()
    if len(known):
        users[known] = model.graph.users(base, graph.user_items.latest(known, USER_NEIGHBORS))
    return model.graph.items(base, users, graph.item_users.latest(everything), base, graph.item_next.latest(everything))


@pytest.mark.parametrize(
    "switches", [{}, {"aggregation": "mean"}, {"aggregation": "sum"}, {"local_heads": 1}, {"by_kind": True}]
)
@settings(max_examples=20, deadline=None)
@given(
    events=st.integers(0, 60).map(lambda n: 2 * n),
    seed=st.integers(0, 5),
    some=st.sets(st.integers(0, 2 * PAIRS - 1), min_size=1).map(sorted),
    partitions=st.integers(1, 3),
)
def test_trainer_equals_the_plain_forward_over_the_engines_state(
    switches: dict[str, Any], events: int, seed: int, some: list[int], partitions: int
) -> None:
    replay = folded(events, seed, partitions)
    state, data, model = replay.state, replay.data(), model_of(seed, **switches)
    table = engine_table(model, state)
    expected = table[state.items.find(data.item_ids)]  # by the trainer's numbers
    forward = ItemForward(model, words(data.item_ids, VOCABULARY), data.content)
    graph = empty_graph(data)
    insert(graph, data.log)
    rows = torch.tensor(some)
    torch.testing.assert_close(forward(rows, graph), expected[rows], atol=1e-5, rtol=0)
    torch.testing.assert_close(forward.table(graph, rows_at_once=7), expected, atol=1e-5, rtol=0)

    # One more event: its user's history as the trainer finds it in the log is the ring as the engine has it.
    longer = folded(events + 2, seed, partitions).data()
    user = planted_log(events + 2, seed).events.user_id[events]
    at = int((longer.log.time_ms == BEGIN_MS + 60_000 * events).nonzero())
    history = Histories(longer.log).before(torch.tensor([at]), WINDOW)
    (row,) = state.find_users([user])
    if row >= 0:
        ring = state.graph.user_items.latest(torch.tensor([row]), WINDOW)
        assert [column.tolist() for column in history.columns()[1:]] == [c.tolist() for c in ring.columns()[1:]]
        numbered = forward.table(graph)
        goal = 3 if model.shape.by_kind else None
        torch.testing.assert_close(
            model.sequence(numbered, history, goal)[:, -1], model.sequence(table, ring, goal)[:, -1], atol=1e-5, rtol=0
        )  # fmt: skip
    else:
        assert not history.mask.any()


def test_without_a_graph_is_as_with_an_empty_one() -> None:
    data = replayed(planted_log(0)).data()
    forward = ItemForward(model_of(0), words(data.item_ids, VOCABULARY), data.content)
    some = torch.tensor([3, 1, 40])
    torch.testing.assert_close(forward(some, None), forward(some, empty_graph(data)), atol=1e-5, rtol=0)


def test_an_embedding_depends_on_the_graph() -> None:
    data = replayed(planted_log(40)).data()
    forward = ItemForward(model_of(0), words(data.item_ids, VOCABULARY), data.content)
    graph = empty_graph(data)
    insert(graph, data.log)
    used = data.log.item.unique()
    moved = (forward(used, graph) - forward(used, None)).abs().amax(1)
    assert (moved > 1e-3).all()
