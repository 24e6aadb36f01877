"""LiveIndex: edits against a dictionary, rebuilds with the background thread held at a gate."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import IndexConfig
from engine.index import hnsw, live
from engine.index.base import Hits
from engine.index.hnsw import BuildStoppedError, HnswGraph
from engine.index.live import LiveIndex

DEADLINE_S = 30
CONFIG = IndexConfig(m=8, ef_construction=40, ef_search=16)
THOROUGH = IndexConfig(ef_search=200)


def unit(vectors):
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def random_unit(seed, *shape):
    return unit(np.random.default_rng(seed).normal(size=shape))


class Gate:
    """A build function that waits until the test lets it go on, then builds or raises."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()
        self.error = None

    def __call__(self, rows, vectors, config, queries, stopped):
        self.entered.set()
        assert self.open.wait(DEADLINE_S)
        if self.error:
            raise self.error
        return HnswGraph.build(rows, vectors, config, queries, stopped)


def finish(index):
    """Waits for the build, then adopts it."""
    assert index._rebuild._done.wait(DEADLINE_S)
    return index.maintain()


ROWS = st.integers(0, 30)
VECTORS = st.integers(0, 40).map(lambda seed: random_unit(seed, 1, 4)[0] if seed else np.zeros(4, np.float32))
STEPS = st.one_of(
    st.tuples(st.just("update"), st.lists(st.tuples(ROWS, VECTORS), min_size=1, max_size=25)),
    st.tuples(st.just("delete"), st.lists(ROWS, min_size=1, max_size=10)),
    st.tuples(st.just("maintain"), st.none()),
)


@pytest.mark.parametrize("graphs", [True, False])
@settings(deadline=None, max_examples=60)
@given(steps=st.lists(STEPS, min_size=1, max_size=12), k=st.integers(1, 40))
def test_any_edits_and_rebuilds_equal_exact_search(graphs, steps, k):
    config = IndexConfig(m=16, ef_search=64, epsilon=0)  # ef covers every row: the graph misses nothing
    held = {}
    with pytest.MonkeyPatch.context() as patch:
        if graphs:  # even for a handful of rows
            patch.setattr(hnsw, "SCAN_ROWS_PER_EF", 0)
            patch.setattr(live, "MIN_DELTA", 0)
            patch.setattr(live, "worth_a_graph", lambda size, config: size > 0)
        index = LiveIndex(4, config, build_inline=True)
        for kind, what in steps:
            if kind == "update":
                index.update(np.array([row for row, _ in what]), np.array([vector for _, vector in what]))
                held.update(what)
            elif kind == "delete":
                index.delete(np.array(what))
                for row in what:
                    held.pop(row, None)
            else:
                index.maintain()
            assert_exact(index, held, k)
        if not graphs:
            assert index.delta_size == len(held) and index.rebuilds == 0


def assert_exact(index, held, k):
    queries = np.concatenate([random_unit(99, 2, 4), np.zeros((1, 4), np.float32)])
    hits = index.search(queries, k)
    assert index.size == len(held)
    n = min(k, len(held))
    for b, query in enumerate(queries):
        scores = {row: float(np.dot(query, vector)) for row, vector in held.items()}
        rows = hits.row[b, :n].tolist()
        assert len(set(rows)) == n
        np.testing.assert_allclose(hits.score[b, :n], sorted(scores.values(), reverse=True)[:n], atol=1e-5)
        np.testing.assert_allclose(hits.score[b, :n], [scores[row] for row in rows], atol=1e-5)
        assert (hits.row[b, n:] == -1).all() and (hits.score[b, n:] == -np.inf).all()


def test_an_empty_index_finds_nothing():
    index = LiveIndex(4, CONFIG)
    index.update(np.empty(0, np.int64), np.empty((0, 4), np.float32))
    assert not index.maintain()
    assert index.search(random_unit(0, 2, 4), 3).row.tolist() == [[-1] * 3] * 2
    index.delete(np.array([5]))
    assert index.size == 0


def test_a_row_is_in_the_delta_while_it_is_further_than_epsilon_from_the_build():
    vectors = random_unit(0, 2000, 8)
    index = LiveIndex.build(np.arange(2000), vectors, CONFIG)
    assert index.delta_size == 0
    away = random_unit(1, 3, 8)
    index.update(np.array([7, 8, 2000]), away)
    assert index.delta_size == 3
    index.update(np.array([7]), unit(vectors[7:8] + 0.01))  # back, but for less than epsilon
    assert index.delta_size == 2
    index.delete(np.array([8]))
    assert index.delta_size == 1
    index.delete(np.array([2000]))
    assert (index.size, index.delta_size) == (1999, 0)


def test_a_row_that_hardly_moved_is_scored_by_its_current_vector(monkeypatch):
    monkeypatch.setattr(hnsw, "SCAN_ROWS_PER_EF", 4)
    vectors = random_unit(0, 3000, 8)
    index = LiveIndex.build(np.arange(3000), vectors, THOROUGH)
    now = unit(vectors[5:6] + np.float32(0.01))
    index.update(np.array([5]), now)
    assert index.delta_size == 0
    hits = index.search(now, 10)
    assert not index._graph.prefers_scan(15)
    assert hits.row[0, 0] == 5
    assert hits.score[0, 0] == pytest.approx(1, abs=1e-6)


def test_more_hits_than_the_graph_holds_are_padded(monkeypatch):
    monkeypatch.setattr(live, "worth_a_graph", lambda size, config: True)
    vectors = random_unit(0, 64, 8)  # as many as the arrays have room for: a stray -1 would name the last row
    index = LiveIndex.build(np.arange(64), vectors, THOROUGH)
    row = index.search(vectors[:1], 90).row[0]
    assert sorted(row[:64]) == list(range(64))
    assert (row[64:] == -1).all()


def test_no_queries_have_no_hits(monkeypatch):
    monkeypatch.setattr(hnsw, "SCAN_ROWS_PER_EF", 4)
    index = LiveIndex.build(np.arange(3000), random_unit(0, 3000, 8), THOROUGH)
    assert not index._graph.prefers_scan(7)
    assert index.search(np.empty((0, 8), np.float32), 5).row.shape == (0, 5)


def test_a_neighborhood_that_moved_away_is_fetched_past(monkeypatch):
    monkeypatch.setattr(hnsw, "SCAN_ROWS_PER_EF", 4)
    vectors = random_unit(0, 3000, 8)
    index = LiveIndex.build(np.arange(3000), vectors, THOROUGH)
    query = random_unit(1, 1, 8)
    order = np.argsort(-(query @ vectors.T)[0])
    index.update(order[:60], -vectors[order[:60]])  # more than one fetch: all of it is masked
    wider = []
    search = index._graph.search
    index._graph.search = lambda queries, k, *_: wider.append((len(queries), k)) or search(queries, k)
    both = index.search(np.concatenate([query, -query]), 10)
    assert both.row[0].tolist() == order[60:70].tolist()
    # 15 rows, then 60, are all masked; the moved ones lead the other query, which needs one fetch.
    assert wider == [(2, 15), (1, 60), (1, 240)]


def test_more_than_the_first_hundred_hits_are_complete_too(monkeypatch):
    monkeypatch.setattr(hnsw, "SCAN_ROWS_PER_EF", 4)
    vectors = random_unit(0, 3000, 8)
    index = LiveIndex.build(np.arange(3000), vectors, THOROUGH)
    query = random_unit(1, 1, 8)
    order = np.argsort(-(query @ vectors.T)[0])
    index.delete(order[50:150])  # of the 225 that are fetched for 150
    assert index.search(query, 150).row[0].tolist() == [*order[:50], *order[150:250]]


def test_a_rebuild_runs_aside_and_keeps_what_came_meanwhile():
    gate = Gate()
    index = LiveIndex(8, CONFIG, build=gate)
    vectors = random_unit(0, 2000, 8)
    index.update(np.arange(2000), vectors)
    assert not index.maintain()
    assert index.rebuilding
    assert gate.entered.wait(DEADLINE_S)
    assert not index.maintain()
    late = random_unit(1, 4, 8)
    index.update(np.array([3, 2000, 2001, 9]), late)
    index.delete(np.array([5, 2001]))
    index.update(np.array([9]), vectors[9:10])  # there and back again
    assert index.search(late[:2], 1).row.tolist() == [[3], [2000]]
    gate.open.set()
    assert finish(index)
    assert (index.rebuilds, index.rebuilding, index.size, index.delta_size) == (1, False, 2000, 2)
    assert sorted(index._delta.rows) == [3, 2000]
    assert index._served_count == np.count_nonzero(index._served) == 1998
    assert index.last_rebuild_s > 0
    assert index.search(late[:2], 1).row.tolist() == [[3], [2000]]
    assert not np.isin([5, 2001], index.search(vectors[[5, 9]], 300).row).any()
    assert not index.maintain()


def test_a_row_deleted_and_reused_during_a_rebuild_has_its_new_vector():
    gate = Gate()
    index = LiveIndex(8, CONFIG, build=gate)
    vectors = random_unit(0, 2000, 8)
    index.update(np.arange(2000), vectors)
    index.maintain()
    index.delete(np.array([4]))
    index.update(np.array([4]), -vectors[4:5])
    gate.open.set()
    assert finish(index)
    assert index.search(-vectors[4:5], 1).row.tolist() == [[4]]
    assert 4 not in index.search(vectors[4:5], 300).row
    assert index.delta_size == 1
    index.update(np.array([10]), -vectors[10:11])  # in place: the graph must have a copy to compare with
    assert index.delta_size == 2


def test_deleted_rows_count_towards_the_next_rebuild():
    index = LiveIndex.build(np.arange(4000), random_unit(0, 4000, 8), CONFIG)
    index._build_inline = True
    index.delete(np.arange(900))
    assert not index.maintain()
    index.delete(np.arange(900, 1100))
    assert index.maintain()
    assert (index.size, index.delta_size, index._graph.size) == (2900, 0, 2900)


def test_a_small_delta_starts_no_rebuild():
    index = LiveIndex.build(np.arange(10_000), random_unit(0, 10_000, 8), CONFIG)
    index._build_inline = True
    index.update(np.arange(1500), random_unit(1, 1500, 8))  # 0.15 of 10,000, not more
    assert not index.maintain()
    index.update(np.arange(1500, 1520), random_unit(2, 20, 8))
    assert index.maintain()


def strand(monkeypatch, nodes):
    """Has every graph find none of these nodes for their own vectors."""
    finds = HnswGraph._finds
    monkeypatch.setattr(
        HnswGraph, "_finds", lambda graph, asked, *args: finds(graph, asked, *args) & ~np.isin(asked, nodes)
    )


def test_rows_that_the_graph_cannot_reach_are_searched_exactly(monkeypatch):
    strand(monkeypatch, [3, 7])
    vectors = random_unit(0, 2000, 8)
    index = LiveIndex.build(np.arange(2000), vectors, THOROUGH)
    assert (index.unreachable, index.delta_size) == (2, 2)
    index.update(np.array([3]), vectors[3:4])  # where it was: still not to be reached
    index.delete(np.array([7]))
    assert index.delta_size == 1
    hide = index._graph.search
    index._graph.search = lambda queries, k, *_: Hits(
        np.where((hit := hide(queries, k)).row == 3, 4, hit.row), hit.score
    )
    assert index.search(vectors[3:4], 1).row.tolist() == [[3]]


def test_a_row_deleted_while_a_graph_that_cannot_reach_it_is_built_stays_away(monkeypatch):
    strand(monkeypatch, [3, 7])
    gate = Gate()
    index = LiveIndex(8, THOROUGH, build=gate)
    vectors = random_unit(0, 2000, 8)
    index.update(np.arange(2000), vectors)
    index.maintain()
    index.delete(np.array([7]))
    gate.open.set()
    assert finish(index)
    assert (index.size, index.delta_size) == (1999, 1)
    assert 7 not in index.search(vectors[7:8], 300).row


def test_sampled_searches_tell_the_live_recall():
    config = THOROUGH.model_copy(update={"probe_queries": 3, "probe_interval_s": 0})
    index = LiveIndex.build(np.arange(2000), random_unit(0, 2000, 8), config)
    assert np.isnan(index.live_recall)
    index.maintain()
    assert index.probes == 0  # nobody has asked yet
    index.search(random_unit(1, 3, 8), 10)
    index.maintain()
    assert (index.probes, index.live_recall) == (1, 1.0)


def test_searches_that_find_too_little_start_a_rebuild():
    config = THOROUGH.model_copy(update={"probe_queries": 1, "probe_interval_s": 0})
    vectors = random_unit(0, 2000, 8)
    index = LiveIndex.build(np.arange(2000), vectors, config)
    index._build_inline = True
    index._probe._clock = lambda: 0.0  # a slow search is no reason to wait
    search = index._graph.search
    index._graph.search = lambda queries, k, *_: Hits(*(part[:, 30:].copy() for part in search(queries, k + 30)))
    for _ in range(20):
        assert index.rebuilds == 0
        index.search(vectors[:1], 10)
        index.maintain()
    assert index.rebuilds == 1
    assert index.live_recall == pytest.approx(0.7)
    index.search(vectors[:1], 10)
    assert not index.maintain()  # what the old graph found does not count against the new one
    assert index.live_recall > 0.7


def test_a_failed_rebuild_is_counted_and_tried_again_later(caplog):
    gate, now_s = Gate(), [0.0]
    gate.error = MemoryError("no room for the graph")
    index = LiveIndex(8, CONFIG, build=gate, clock=lambda: now_s[0])
    vectors = random_unit(0, 2000, 8)
    index.update(np.arange(2000), vectors)
    index.maintain()
    gate.open.set()
    assert not finish(index)
    assert (index.failures, index.rebuilds, index.rebuilding) == (1, 0, False)
    assert "no room for the graph" in caplog.text
    assert index.search(vectors[:9], 1).row[:, 0].tolist() == list(range(9))
    now_s[0] = live.RETRY_S - 1
    index.maintain()
    assert not index.rebuilding
    gate.error = None
    gate.open.clear()
    now_s[0] = live.RETRY_S
    index.maintain()
    assert index.rebuilding
    gate.open.set()
    assert finish(index)
    assert (index.failures, index.rebuilds, index.delta_size) == (1, 1, 0)


def test_close_ends_a_running_build_and_starts_no_other():
    entered = threading.Event()

    def endless(rows, vectors, config, queries, stopped):
        entered.set()
        while not stopped():
            pass
        raise BuildStoppedError("stopped")

    index = LiveIndex(8, CONFIG, build=endless)
    index.update(np.arange(2000), random_unit(0, 2000, 8))
    index.maintain()
    assert entered.wait(DEADLINE_S)
    index.close()
    index.close()
    assert not index.maintain()
    assert not index.rebuilding
    assert "index-rebuild" not in [thread.name for thread in threading.enumerate()]


def test_recent_queries_go_into_the_measure_of_the_next_graph():
    seen = []

    def build(rows, vectors, config, queries, stopped):
        seen.append(queries)
        return HnswGraph.build(rows, vectors, config, queries, stopped)

    index = LiveIndex(8, CONFIG, build=build, build_inline=True)
    index.update(np.arange(2000), random_unit(0, 2000, 8))
    queries = random_unit(1, 70, 8)
    index.search(queries[:3], 1)
    index.search(queries[3:], 1)
    assert index.maintain()
    assert (seen[0] == queries[-64:]).all()
