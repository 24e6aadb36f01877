"""HNSW beside exact search: what is counted, what is filtered, and how the graph is asked."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.config import IndexConfig
from tests.trainer.evaluation.logs import log_of
from trainer.data.log import Events, Questions, Split
from trainer.evaluation.index import Graph, index_figures
from trainer.evaluation.splits import leave_one_out, successive

ITEMS, USERS, LENGTH, DIM = 400, 30, 12, 8
BOUGHT = np.stack([np.random.default_rng(user).permutation(40)[:LENGTH] for user in range(USERS)])
LOG = log_of(
    [(user, user, int(BOUGHT[user, at]), float(at)) for at in range(LENGTH) for user in range(USERS)], items=ITEMS
)


def unit(seed: int, rows: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


class Fixed:
    """A vector per item and per asking user; all items but the last are known."""

    def __init__(self, events: Events) -> None:
        self.table, self.query = unit(1, ITEMS), unit(2, USERS)
        self.known = np.arange(ITEMS) < ITEMS - 1
        self._events = events

    def vectors(self, questions: Questions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        user = self._events.user[questions.order[questions.cut]]
        return torch.from_numpy(self.query[user]), torch.from_numpy(self.table), torch.from_numpy(self.known)


def nearest(scorer: Fixed, user: int, without: set[int], k: int) -> list[int]:
    score = scorer.table @ scorer.query[user]
    left = [item for item in np.argsort(-score).tolist() if item not in without and scorer.known[item]]
    return left[:k]


def ndcg(lists: dict[int, list[int]], split: Split) -> float:
    earned = []
    for at in range(len(split.questions)):
        user = int(LOG.user[split.questions.targets(at)[0]])
        target = int(LOG.item[split.questions.targets(at)[0]])
        earned.append(1 / math.log2(lists[user].index(target) + 2) if target in lists[user] else 0.0)
    return float(np.mean(earned))


def test_what_the_graph_misses_costs_recall_and_ndcg(monkeypatch: pytest.MonkeyPatch) -> None:
    split, scorer = leave_one_out(LOG), Fixed(LOG)
    # Everybody asks near the target, so that hiding a seventh of the items hides some targets.
    scorer.query[:] = scorer.table[BOUGHT[:, -1]] + 0.3 * unit(3, USERS)
    scorer.table[-1] = scorer.table[BOUGHT[0, -1]]  # of the item that is not known
    hidden = set(range(0, ITEMS, 7))
    monkeypatch.setattr(
        Graph,
        "found",
        lambda self, query, want: np.tile([item not in hidden for item in range(ITEMS)], (len(query), 1)),
    )
    figures = index_figures(scorer, LOG, split, [3, 10])
    histories = {user: {int(LOG.item[at]) for at in np.flatnonzero(LOG.user == user)[:-1]} for user in range(USERS)}
    exact = {user: nearest(scorer, user, histories[user], 10) for user in range(USERS)}
    seen = {user: nearest(scorer, user, histories[user] | hidden, 10) for user in range(USERS)}
    kept = [len(set(exact[user]) & set(seen[user])) / 10 for user in range(USERS)]
    assert figures["recall@10"] == pytest.approx(np.mean(kept))
    first = [{user: items[:3] for user, items in of.items()} for of in (exact, seen)]
    best, got = (ndcg(lists, split) for lists in first)
    assert best > got > 0
    assert figures["ndcg@3_exact"] == pytest.approx(best)
    assert figures["ndcg@3_hnsw"] == pytest.approx(got)
    assert figures["ndcg_cost@3"] == pytest.approx(1 - got / best)
    assert (figures["items"], figures["nodes"]) == (ITEMS - 1, ITEMS - 1)


def test_the_graph_is_asked_for_as_many_more_as_the_filter_may_take() -> None:
    scorer, narrow = Fixed(LOG), IndexConfig(ef_search=8)
    # The eleven items next to everything that anybody asks are the history of user 0.
    scorer.query[:] = scorer.query[0]
    scorer.table[BOUGHT[0, :-1]] = scorer.query[0] + 0.01 * unit(4, LENGTH - 1)
    for split in (leave_one_out(LOG), successive(LOG, quantile=0.5)):
        first = int(np.flatnonzero(LOG.user[split.questions.order[split.questions.cut]] == 0)[-1])
        asked = replace(split, questions=split.questions.select(slice(first, first + 1)))
        assert index_figures(scorer, LOG, asked, [5], narrow)["recall@5"] == 1


def test_each_query_gets_as_many_as_it_wants_and_not_what_another_wants() -> None:
    scorer = Fixed(LOG)
    graph = Graph(scorer.table, scorer.known, IndexConfig(ef_search=8))
    want = np.array([1, 9, 8, 100, 1000])
    assert graph.found(scorer.query[:5], want).sum(1).tolist() == [8, 16, 8, 128, ITEMS - 1]


def test_equal_vectors_share_a_node_and_are_found_together() -> None:
    table = np.repeat(unit(5, 20), 20, axis=0)
    graph = Graph(table, np.arange(ITEMS) != 7, IndexConfig())
    assert graph.nodes == 20
    one = Graph(table, np.arange(ITEMS) != 7, IndexConfig(ef_search=8)).found(table[:1], np.array([1]))
    assert one.sum() == 8 * 20 - 1 and one[0, :20].sum() == 19 and not one[0, 7]


def test_a_graph_that_cannot_reach_enough_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Fixed(LOG)
    graph = Graph(scorer.table, scorer.known, IndexConfig())

    class Stranded:
        def set_ef(self, ef: int) -> None:
            pass

        def knn_query(self, query: np.ndarray, k: int, num_threads: int) -> None:
            raise RuntimeError("Cannot return the results in a contiguous 2D array")

    monkeypatch.setattr(graph, "_hnsw", Stranded())
    assert (graph.found(scorer.query, np.full(USERS, 10)) == scorer.known).all()
