"""Law 6: what the trainer computes from its own store equals what the engine computes from its state of the same log.

The two number users and items differently, so embeddings and lists are compared by item id and histories by user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.config import Config, RankingConfig, StateConfig
from engine.events.batch import CatalogItem, Decoded
from engine.features.table import Feature
from engine.generation import Frozen, build_generation
from engine.model.gnn import USER_NEIGHBORS
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights
from engine.ranking.asked import Asked, Filter
from engine.ranking.lists import Made, make_lists
from engine.ranking.moment import Now
from engine.ranking.query import Query
from engine.state.state import State
from tests.trainer.planted import BEGIN_MS, KINDS, PAIRS, planted_log, replayed
from trainer.dataset import Histories
from trainer.forward import ItemForward
from trainer.live_fold import LiveFold, insert
from trainer.replay import Replay, TrainingData
from trainer.start import words
from trainer.walk import ExactModel, empty_graph

WINDOW = 8
STATE = StateConfig(history=16, neighbors=4, content_dim=16, max_users=90)
LISTS = RankingConfig(index_candidates=200, popular_candidates=10)  # every item is a candidate
VOCABULARY = [f"{side}{pair}" for pair in range(0, PAIRS, 2) for side in "AB"]  # every other pair has learned ids


def spread(log: Decoded, partitions: int) -> Decoded:
    """The same log with each user's events in one of several partitions."""
    partition = np.array([int(user[1:]) % partitions for user in log.events.user_id], dtype=np.int32)
    columns = {name: getattr(log.events, name) for name in log.events.__dataclass_fields__}
    events = type(log.events)(**columns | {"partition": partition})
    positions = {("ousel.events", at): len(events) for at in range(partitions)} | {("ousel.items", 0): 1}
    return Decoded(events, log.items, [], positions)


def folded(events: int, seed: int, partitions: int, **few: int) -> Replay:
    replay = Replay(STATE, KINDS, 100_000, partitions=partitions, ranking=LISTS)
    replay.fold(spread(planted_log(events, seed, **few), partitions))
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
    histories = Histories(longer.log)
    asked = histories.questions(at, at + 1)
    (row,) = state.find_users([user])
    assert len(asked) == (row >= 0)
    if len(asked):
        history = histories.known_to(asked, WINDOW)
        ring = state.graph.user_items.latest(torch.tensor([row]), WINDOW)
        assert [column.tolist() for column in history.columns()[1:]] == [c.tolist() for c in ring.columns()[1:]]
        numbered = forward.table(graph)
        goal = 3 if model.shape.by_kind else None
        torch.testing.assert_close(
            model.sequence(numbered, history, goal)[:, -1], model.sequence(table, ring, goal)[:, -1], atol=1e-5, rtol=0
        )  # fmt: skip


class Told(NamedTuple):
    """What is known of the items of one list, by id: their features, and their scores."""

    features: dict[str, Tensor]
    score: dict[str, float]


def told(made: Made, ids: Sequence[str]) -> Told:
    rows = [row for row in made.weighed.listable.row[0].tolist() if row >= 0]
    listed = zip(made.pages[0].row.tolist(), made.pages[0].score.tolist(), strict=True)
    features = zip(rows, torch.from_numpy(made.weighed.features[0]), strict=False)
    return Told({ids[row]: one for row, one in features}, {ids[row]: score for row, score in listed})


def served(replay: Replay, model: Recommender, query: Query) -> Told:
    """As the engine makes the list."""
    state, config = replay.state, Config(state=STATE, events=KINDS, ranking=LISTS)
    while not state.availability.settled(state.newest_ms):
        state.pass_time(state.newest_ms, 100)
    generation = build_generation(Weights(model, VOCABULARY), 1, {}, Frozen.of(state), config)
    moment = Now(state, state.newest_ms)
    return told(make_lists(Asked.of([query], state, LISTS), moment, generation, LISTS), state.items.ids())


def trained(data: TrainingData, at: int, model: Recommender, query: Query, categories: dict[str, str]) -> Told:
    """As a training makes the list for what its user did at a position of the log."""
    live = LiveFold(data)
    live.fold(data.log.slice(0, at))
    forward = ItemForward(model, words(data.item_ids, VOCABULARY), data.content)
    exact = ExactModel(forward, forward.table(live.graph), live)
    excluded = [row for row, item_id in enumerate(data.item_ids) if item_id in query.exclude_item_ids]
    within = [row for row, item_id in enumerate(data.item_ids) if categories.get(item_id) in query.categories]
    filter_ = Filter(np.array(excluded, np.int64), np.array(within, np.int64) if query.categories else None)
    histories = Histories(data.log)
    history = histories.known_to(histories.questions(at, at + 1), data.state.history)
    asked = Asked([query], data.log.user[at : at + 1].numpy(), history.arrays(), [filter_])
    return told(make_lists(asked, live, exact, data.ranking), data.item_ids)


@settings(max_examples=60, deadline=None)
@given(
    events=st.integers(10, 60).map(lambda n: 2 * n),
    seed=st.integers(0, 5),
    partitions=st.integers(1, 3),
    fate=st.lists(st.sampled_from(["stays", "deleted", "expired", "expires", "comes"]), min_size=20, max_size=20),
    query=st.sampled_from(
        [
            Query("u", "", 30),
            Query("u", "", 30, exclude_history=True),
            Query("u", "", 30, exclude_item_ids=("A1", "B2", "never")),
            Query("u", "", 30, categories=("c1",)),
        ]
    ),
)
def test_features_and_scores_in_training_equal_those_in_serving(
    events: int, seed: int, partitions: int, fate: list[str], query: Query
) -> None:
    now_ms = BEGIN_MS + 60_000 * (events - 1)
    times = {"expired": (None, now_ms), "expires": (None, now_ms + 1), "comes": (now_ms + 1, None)}
    categories = {f"{side}{pair}": f"c{pair % 3}" for pair in range(PAIRS) for side in "AB"}
    records = [
        CatalogItem(
            item_id, categories=(category,), deleted=fate[at % 20] == "deleted",
            available_from_ms=times.get(fate[at % 20], (None, None))[0],
            available_until_ms=times.get(fate[at % 20], (None, None))[1],
        )
        for at, (item_id, category) in enumerate(categories.items())
    ]  # fmt: skip
    few = {"users": 4, "pairs": 6}  # so that histories are long, and repeat themselves
    replays = [folded(count, seed, partitions, **few) for count in (events, events + 2)]
    for replay in replays:
        replay.fold(Decoded(planted_log(0).events, records, [], {("ousel.items", 0): 1 + len(records)}))
    replay, data, model = replays[0], replays[1].data(), model_of(seed)
    user = planted_log(events + 2, seed, **few).events.user_id[events]
    assume(replay.state.find_users([user])[0] >= 0)
    torch.nn.init.normal_(model.ranker.score.weight)  # so that every feature counts
    at = int((data.log.time_ms == BEGIN_MS + 60_000 * events).nonzero())
    query = replace(query, user_id=user)
    serving, training = served(replay, model, query), trained(data, at, model, query, categories)
    histories = Histories(data.log)
    history = histories.known_to(histories.questions(at, at + 1), data.state.history).row[0]
    had = [data.item_ids[row] for row in history.tolist() if row >= 0]
    left_out = {*query.exclude_item_ids, *(had if query.exclude_history else ())}
    may = {item_id for at, item_id in enumerate(categories) if fate[at % 20] in ("stays", "expires")} - left_out
    if query.categories:
        may = {item_id for item_id in may if categories[item_id] in query.categories}
    assert serving.features.keys() == training.features.keys() == may
    had = [item_id for item_id in had if item_id in may]
    repeats = 1 - len({*had}) / len(had) if had else 0.0
    for item_id, features in serving.features.items():
        assert features[Feature.REPEATS].item() == pytest.approx(repeats, abs=1e-6)
        torch.testing.assert_close(training.features[item_id], features, atol=1e-5, rtol=1e-5)
    # Of items with the same score either may be the last of a list.
    assert [*training.score.values()] == pytest.approx([*serving.score.values()], abs=1e-4)
    for item_id in serving.score.keys() & training.score.keys():
        assert training.score[item_id] == pytest.approx(serving.score[item_id], abs=1e-4)


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
