"""Law 6: the trainer's forward of a few rows equals the model's plain forward over full tables, on the same log."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.gnn import USER_NEIGHBORS
from engine.model.recommender import ModelShape, Recommender
from tests.trainer.planted import planted_log, replayed
from trainer.dataset import Histories
from trainer.forward import ItemForward

WINDOW = 8


@settings(max_examples=15, deadline=None)
@given(
    events=st.integers(0, 60).map(lambda n: 2 * n), seed=st.integers(0, 5), rows=st.sets(st.integers(0, 79), min_size=1)
)
def test_trainer_equals_the_plain_forward(events: int, seed: int, rows: set[int]) -> None:
    replay = replayed(planted_log(events, seed))
    state, data = replay.state, replay.data()
    torch.manual_seed(seed)
    items = data.items
    model = Recommender(ModelShape(vocabulary=items, content_dim=16, kinds=8, dim=16, heads=2, blocks=1, window=WINDOW))
    model.eval().requires_grad_(False)
    for bias in (model.graph.user_root, model.graph.edge.scale.weight):
        torch.nn.init.normal_(bias)  # zero at the start, and then nothing would be seen of them
    word = torch.randint(0, items + 1, (items,))
    forward = ItemForward(model, word, data.content)

    everyone, everything = torch.arange(len(state.users)), torch.arange(items)
    graph = state.graph
    base = model.graph.base(word, state.catalog.contents())
    users = model.graph.users(base, graph.user_items.latest(everyone, USER_NEIGHBORS))
    if len(users) == 0:
        users = base[:1]
    table = model.graph.items(
        base, users, graph.item_users.latest(everything), base, graph.item_next.latest(everything)
    )

    some = torch.tensor(sorted(rows))
    torch.testing.assert_close(forward(some, graph), table[some], atol=1e-5, rtol=0)
    torch.testing.assert_close(forward.table(graph, rows_at_once=7), table, atol=1e-5, rtol=0)

    if events:
        # One more event: its user's history as the trainer finds it in the log is the ring as the engine has it.
        histories = Histories(replayed(planted_log(events + 2, seed)).data().log)
        last = histories.before(torch.tensor([events]), WINDOW)
        row = state.users.get(f"u:{planted_log(events + 2, seed).events.user_id[events]}")
        if row is not None:
            ring = graph.user_items.latest(torch.tensor([row]), WINDOW)
            torch.testing.assert_close(
                model.sequence(table, last)[:, -1], model.sequence(table, ring)[:, -1], atol=1e-5, rtol=0
            )


def test_without_a_graph_is_as_with_an_empty_one() -> None:
    replay = replayed(planted_log(0))
    data = replay.data()
    model = Recommender(
        ModelShape(vocabulary=0, content_dim=16, kinds=8, dim=16, heads=2, blocks=1, window=WINDOW)
    ).eval()
    forward = ItemForward(model, torch.zeros(data.items, dtype=torch.int64), data.content)
    some = torch.tensor([3, 1, 40])
    torch.testing.assert_close(forward(some, None), forward(some, replay.state.graph), atol=1e-5, rtol=0)


def test_an_embedding_depends_on_the_graph() -> None:
    replay = replayed(planted_log(40))
    data = replay.data()
    model = Recommender(
        ModelShape(vocabulary=0, content_dim=16, kinds=8, dim=16, heads=2, blocks=1, window=WINDOW)
    ).eval()
    forward = ItemForward(model, torch.zeros(data.items, dtype=torch.int64), data.content)
    used = data.log.item.unique()
    moved = (forward(used, replay.state.graph) - forward(used, None)).abs().amax(1)
    assert (moved > 1e-3).all()
