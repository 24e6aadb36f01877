"""HnswGraph against a full sort, with the inputs that HNSW is known to fail on."""

import numpy as np
import pytest

from engine.config import IndexConfig
from engine.index import hnsw
from engine.index.hnsw import BuildStoppedError, HnswGraph

CONFIG = IndexConfig(m=12, ef_construction=80, ef_search=150)


@pytest.fixture(autouse=True)
def small_graphs_are_followed(monkeypatch):
    monkeypatch.setattr(hnsw, "SCAN_ROWS_PER_EF", 4)


def unit(vectors):
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def random_unit(seed, *shape):
    return unit(np.random.default_rng(seed).normal(size=shape))


def recall(hits, rows, vectors, queries, k):
    scores = queries @ vectors.T
    kth = -np.sort(-scores, axis=1)[:, k - 1 : k]
    position = {int(row): i for i, row in enumerate(rows)}
    for b, row in enumerate(hits.row):
        assert len(set(row)) == len(row)
        np.testing.assert_allclose(hits.score[b], scores[b, [position[int(r)] for r in row]], atol=1e-5)
    assert (np.diff(hits.score, axis=1) <= 1e-6).all()
    return float((hits.score[:, :k] >= kth - 1e-6).mean())


def test_finds_nearly_all_of_the_nearest_and_names_them_by_row():
    vectors = random_unit(0, 3000, 16)
    rows = np.random.default_rng(1).permutation(9000)[:3000]
    graph = HnswGraph.build(rows, vectors, CONFIG)
    queries = random_unit(2, 20, 16)
    assert graph.size == 3000
    assert not graph.prefers_scan(100)
    assert graph.recall >= 0.995
    assert recall(graph.search(queries, 100), rows, vectors, queries, 100) >= 0.99


def test_ef_rises_until_the_recall_is_reached():
    vectors = random_unit(0, 3000, 24)
    weak = IndexConfig(m=6, ef_construction=30, ef_search=100)
    graph = HnswGraph.build(np.arange(3000), vectors, weak)
    assert graph.ef in (200, 400)
    assert graph.recall >= 0.995


def test_a_graph_that_cannot_reach_the_recall_asks_for_a_scan(caplog):
    # Tight clusters: nobody's nearest neighbors lie outside their own, so the graph falls apart.
    rng = np.random.default_rng(0)
    centers = random_unit(1, 80, 32)
    vectors = unit(centers[rng.integers(80, size=8000)] + 1e-4 * rng.normal(size=(8000, 32)))
    graph = HnswGraph.build(np.arange(8000), vectors, IndexConfig(m=4, ef_construction=16, ef_search=30))
    assert graph.ef is None
    assert graph.prefers_scan(1)
    assert graph.recall < 0.995
    assert "scanning every item" in caplog.text


def test_ef_rises_until_queries_and_items_are_both_found(monkeypatch):
    vectors = random_unit(0, 1500, 8)
    queries = random_unit(1, 9, 8)

    def measure(graph: HnswGraph, probes: np.ndarray) -> float:
        asked = probes.shape == queries.shape and bool((probes == queries).all())
        return 0.9 if asked and graph.ef < 4 * CONFIG.ef_search else 1.0

    monkeypatch.setattr(HnswGraph, "_measure", measure)
    assert HnswGraph.build(np.arange(1500), vectors, CONFIG, queries).ef == 4 * CONFIG.ef_search
    assert HnswGraph.build(np.arange(1500), vectors, CONFIG).ef == CONFIG.ef_search


def test_equal_vectors_do_not_hide_the_others():
    rng = np.random.default_rng(0)
    vectors = random_unit(1, 5000, 16)
    vectors[:2000] = vectors[rng.integers(4990, 5000, size=2000)]  # ten vectors, 200 times each
    vectors[2000:2500] = 0
    rows = rng.permutation(5000)
    graph = HnswGraph.build(rows, vectors, CONFIG)
    queries = np.concatenate([vectors[:3], vectors[4990:], random_unit(2, 10, 16)])
    for k in (1, 100, 450, 1000):
        assert recall(graph.search(queries, k), rows, vectors, queries, k) >= 0.99


def test_fewer_distinct_vectors_than_k_still_give_k_rows():
    vectors = np.repeat(random_unit(0, 3, 4), [5, 1, 2], axis=0)
    hits = HnswGraph.build(np.arange(8), vectors, CONFIG).search(vectors[5:6], 6)
    assert hits.row.shape == (1, 6)
    assert hits.row[0, 0] == 5
    assert len(set(hits.row[0])) == 6


def test_fewer_rows_than_k_are_padded():
    vectors = random_unit(0, 5, 4)
    hits = HnswGraph.build(np.arange(5), vectors, CONFIG).search(vectors[:2], 8)
    assert sorted(hits.row[0, :5]) == [0, 1, 2, 3, 4]
    assert (hits.row[:, 5:] == -1).all()
    assert (hits.score[:, 5:] == -np.inf).all()


def test_an_empty_graph_finds_nothing():
    graph = HnswGraph.build(np.empty(0, np.int64), np.empty((0, 4), np.float32), CONFIG)
    hits = graph.search(random_unit(0, 2, 4), 3)
    assert graph.prefers_scan(3)
    assert hits.row.tolist() == [[-1] * 3] * 2
    assert graph.distance(np.array([0]), random_unit(0, 1, 4)).tolist() == [np.inf]


def test_an_unreachable_rest_is_scanned():
    class Stranded:
        def set_ef(self, ef):
            pass

        def knn_query(self, queries, k, num_threads):
            raise RuntimeError("fewer than k")

    vectors = random_unit(0, 50, 4)
    graph = HnswGraph.build(np.arange(50), vectors, CONFIG)
    graph._hnsw = Stranded()
    assert graph.search(vectors[:9], 1).row[:, 0].tolist() == list(range(9))


def test_a_node_that_nothing_leads_to_is_named_with_all_its_rows(monkeypatch):
    vectors = random_unit(0, 500, 8)
    vectors[100] = vectors[400]  # one node
    rows = np.arange(1000, 1500)
    distinct = np.unique(vectors.view(np.dtype((np.void, 32)))[:, 0])
    lost = int(np.flatnonzero(distinct == vectors.view(np.dtype((np.void, 32)))[100, 0])[0])
    query = hnsw.hnswlib.Index.knn_query

    class Stranding(hnsw.hnswlib.Index):
        """Answers as its base does, but never with one of its nodes."""

        def knn_query(self, queries, k, num_threads):
            node, distance = query(self, queries, k=k + 1, num_threads=num_threads)
            order = np.argsort(node == lost, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(node, order, axis=1), np.take_along_axis(distance, order, axis=1)

    assert HnswGraph.build(rows, vectors, CONFIG).unreachable.tolist() == []
    monkeypatch.setattr(hnsw.hnswlib, "Index", Stranding)
    graph = HnswGraph.build(rows, vectors, CONFIG)
    assert sorted(graph.unreachable) == [1100, 1400]
    distance = graph.distance(np.array([1100, 1101, 1400]), vectors[[100, 101, 400]])
    assert distance.tolist() == [np.inf, 0, np.inf]


def test_a_graph_that_reaches_too_few_of_its_nodes_asks_for_a_scan(monkeypatch, caplog):
    vectors = random_unit(0, 500, 8)
    monkeypatch.setattr(HnswGraph, "_finds", lambda self, nodes, width, threads: nodes >= 6)
    graph = HnswGraph.build(np.arange(500), vectors, CONFIG)
    assert graph.prefers_scan(1)
    assert len(graph.unreachable) == 0
    assert "6 of 500 nodes" in caplog.text
    assert graph.distance(np.array([2]), vectors[2:3]).tolist() == [0]


def test_distance_is_from_the_vector_of_the_build():
    graph = HnswGraph.build(np.array([4, 2]), np.array([[1, 0], [0, 1]], np.float32), CONFIG)
    vectors = np.array([[1, 0], [0.6, 0.8], [1, 0], [1, 0]], np.float32)
    distance = graph.distance(np.array([4, 2, 3, 99]), vectors)
    np.testing.assert_allclose(distance, [0, np.hypot(0.6, 0.2), np.inf, np.inf], rtol=1e-6)


def test_a_build_can_be_stopped(monkeypatch):
    monkeypatch.setattr(hnsw, "_CHUNK", 10)
    answers = iter([False, False, True])
    with pytest.raises(BuildStoppedError, match="after 20 of 50"):
        HnswGraph.build(np.arange(50), random_unit(0, 50, 4), CONFIG, None, lambda: next(answers))


def test_two_builds_of_the_same_vectors_answer_alike():
    vectors, queries = random_unit(0, 2000, 16), random_unit(1, 5, 16)
    poor = IndexConfig(m=2, ef_construction=8, ef_search=8)  # what it misses depends on how it was built
    first, second = (HnswGraph.build(np.arange(2000), vectors.copy(), poor).search(queries, 50) for _ in range(2))
    assert recall(first, np.arange(2000), vectors, queries, 50) < 0.99
    assert first.row.tolist() == second.row.tolist()
