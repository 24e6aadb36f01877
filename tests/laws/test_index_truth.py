"""Law 4: recall@100 against exact search over the current vectors is >= 0.99 at every moment; the deleted stay away."""

import threading

import numpy as np
import pytest

from engine.config import IndexConfig
from engine.index import hnsw
from engine.index.hnsw import HnswGraph
from engine.index.live import LiveIndex

SIZE, DIM, K = 5000, 16, 100
CONFIG = IndexConfig(m=16, ef_construction=100, ef_search=200)


@pytest.fixture(autouse=True)
def small_graphs_are_followed(monkeypatch):
    monkeypatch.setattr(hnsw, "SCAN_ROWS_PER_EF", 4)


def unit(vectors):
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class World:
    """A catalog whose vectors move, and the index that follows it, probed after every step."""

    def __init__(self, draw, build=HnswGraph.build):
        self.rng = np.random.default_rng(0)
        self.draw = draw
        self.vectors = np.concatenate([draw(self.rng, SIZE), np.zeros((2 * SIZE, DIM), np.float32)])
        self.alive = np.arange(3 * SIZE) < SIZE
        self.index = LiveIndex(DIM, CONFIG, build=build)
        self.index.update(np.arange(SIZE), self.vectors[:SIZE])
        self.through_graph = 0

    def drift(self, share, distance):
        rows = np.flatnonzero(self.alive & (self.rng.random(len(self.alive)) < share))
        step = distance * unit(self.rng.normal(size=(len(rows), DIM)))
        self._move(rows, unit(self.vectors[rows] + step))

    def appear(self, count):
        rows = self.rng.choice(np.flatnonzero(~self.alive), count, replace=False)
        self._move(rows, self.draw(self.rng, count))

    def _move(self, rows, vectors):
        self.alive[rows], self.vectors[rows] = True, vectors
        self.index.update(rows, vectors)

    def disappear(self, count):
        rows = self.rng.choice(np.flatnonzero(self.alive), count, replace=False)
        self.alive[rows] = False
        self.index.delete(rows)

    def live_a_little(self):
        self.drift(0.2, 0.02)
        self.drift(0.01, 0.5)
        self.appear(40)
        self.disappear(40)

    def probe(self):
        live = np.flatnonzero(self.alive)
        queries = np.concatenate([self.vectors[self.rng.choice(live, 8)], self.draw(self.rng, 8)])
        hits = self.index.search(queries, K)
        self.through_graph += not self.index._graph.prefers_scan(K + K // 2)
        assert self.index.size == len(live)
        assert self.alive[hits.row].all(), "a deleted item was returned"
        scores = queries @ self.vectors[live].T
        kth = -np.sort(-scores, axis=1)[:, K - 1 : K]
        assert (hits.score >= kth - 1e-6).mean() >= 0.99
        # The scores are those of the current vectors, and no row comes twice.
        np.testing.assert_allclose(hits.score, np.einsum("bkd,bd->bk", self.vectors[hits.row], queries), atol=1e-5)
        assert all(len(set(row)) == K for row in hits.row)


def spread(rng, count):
    return unit(rng.normal(size=(count, DIM)))


def half_cold(rng, count):
    """Half of the items share one of fifty vectors, as items without a history do."""
    vectors = spread(rng, count)
    cold = rng.random(count) < 0.5
    vectors[cold] = spread(np.random.default_rng(1), 50)[rng.integers(50, size=np.count_nonzero(cold))]
    return vectors


def tight(rng, count):
    """Clusters hardly wider than a point, larger than a fetch: a step below epsilon reorders them all."""
    centers = spread(np.random.default_rng(1), 8)
    return unit(centers[rng.integers(8, size=count)] + 1e-3 * rng.normal(size=(count, DIM)))


@pytest.mark.parametrize("draw", [spread, half_cold, tight])
def test_recall_holds_while_vectors_move_during_a_rebuild_and_across_the_swap(draw):
    gate, entered = threading.Event(), threading.Event()

    def gated(rows, vectors, config, queries, stopped):
        entered.set()
        assert gate.wait(30)
        return HnswGraph.build(rows, vectors, config, queries, stopped)

    world = World(draw, gated)
    for rebuild in range(1, 3):
        world.probe()
        while not world.index.rebuilding:  # until the delta is large enough
            assert not world.index.maintain()
            world.live_a_little()
            world.probe()
        assert entered.wait(30)
        for _ in range(3):  # with the build on its way
            world.live_a_little()
            world.probe()
            assert not world.index.maintain()
        gate.set()
        assert world.index._rebuild._done.wait(60)
        world.live_a_little()  # built, not adopted yet
        world.probe()
        assert world.index.maintain()
        assert world.index.rebuilds == rebuild
        world.probe()
        gate.clear()
        entered.clear()
    for _ in range(3):
        world.live_a_little()
        world.probe()
    assert world.index.failures == 0
    assert world.through_graph > 5 or draw is not spread
    world.index.close()


def test_recall_holds_where_every_vector_drifts_by_just_under_epsilon():
    world = World(spread)
    world.index = LiveIndex.build(np.arange(SIZE), world.vectors[:SIZE], CONFIG)
    world.drift(1.0, 0.99 * CONFIG.epsilon)
    assert world.index.delta_size == 0
    world.probe()
    assert world.through_graph == 1


def expired(world, rows):
    """These rows may not be shown any more."""
    world.alive[rows] = False
    world.index.delete(rows)


@pytest.mark.parametrize("left", [0, 30, 100, 150, 600, 2600])
def test_where_few_of_many_may_be_shown_a_search_finds_all_the_best_of_them(left):
    world = World(spread)
    world.index = LiveIndex.build(np.arange(SIZE), world.vectors[:SIZE], CONFIG)
    expired(world, np.setdiff1d(np.arange(SIZE), world.rng.choice(SIZE, left, replace=False)))
    live = np.flatnonzero(world.alive)
    queries = world.draw(world.rng, 8)
    for _ in range(3):
        hits = world.index.search(queries, K)
        for row, query in zip(hits.row, queries, strict=True):
            best = live[np.argsort(-(world.vectors[live] @ query), kind="stable")][:K]
            assert set(row[row >= 0]) <= set(live)
            assert len(set(row) & set(best)) >= 0.99 * len(best)
            assert np.count_nonzero(row >= 0) == len(best)


def test_where_few_of_many_may_be_shown_the_graph_is_not_searched_wider_and_wider(monkeypatch):
    world = World(spread)
    world.index = LiveIndex.build(np.arange(SIZE), world.vectors[:SIZE], CONFIG)
    asked = []
    search = HnswGraph.search
    monkeypatch.setattr(HnswGraph, "search", lambda self, queries, k, *_: asked.append(k) or search(self, queries, k))
    world.probe()
    assert asked
    expired(world, np.arange(30, SIZE))
    asked.clear()
    world.index.search(world.draw(world.rng, 8), K)
    assert not asked


def test_recall_holds_while_most_rows_come_and_go_by_the_hour_with_and_without_a_rebuild():
    world = World(spread)
    world.index = LiveIndex.build(np.arange(SIZE), world.vectors[:SIZE], CONFIG)
    for hour in range(6):
        gone = np.flatnonzero(np.arange(SIZE) % 6 != hour)
        expired(world, gone)
        world.probe()
        world.live_a_little()
        if hour % 2:
            while not world.index.rebuilding:
                world.index.maintain()
            assert world.index._rebuild._done.wait(60)
            assert world.index.maintain()
            world.probe()
        back = gone[~world.alive[gone]]
        world.alive[back] = True
        world.index.update(back, world.vectors[back])
        world.probe()


def test_recall_holds_where_the_neighborhood_of_the_query_was_deleted():
    world = World(spread)
    world.index = LiveIndex.build(np.arange(SIZE), world.vectors[:SIZE], CONFIG)
    query = spread(np.random.default_rng(5), 1)
    nearest = np.argsort(-(query @ world.vectors[:SIZE].T)[0])[:1000]
    world.alive[nearest] = False
    world.index.delete(nearest)
    assert np.isin(world.index.search(query, K).row, nearest).sum() == 0
    world.probe()
