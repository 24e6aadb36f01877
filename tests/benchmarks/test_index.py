"""The figures of `benchmarks.index`, on a small catalog whose movement is made up."""

from dataclasses import replace

import hnswlib
import numpy as np
import pytest

from benchmarks import index as benchmark
from benchmarks.index import Catalog, drive, fill_delta, inplace_per_s, probe, unit, unreachable
from benchmarks.index_moves import Recording, Update
from engine.config import IndexConfig
from engine.index.live import LiveIndex

ITEMS, ROWS, DIM = 900, 1000, 8
CONFIG = IndexConfig(ef_search=100)


@pytest.fixture
def recording():
    draw = np.random.default_rng(0)
    start = unit(draw.normal(size=(ITEMS, DIM)))
    start[100:500] = start[0]  # items without a history
    updates = [
        Update(draw.choice(ITEMS, 20, replace=False), np.float32(0.1) * unit(draw.normal(size=(20, DIM))))
        for _ in range(30)
    ]
    return Recording(start, [*updates, Update(np.empty(0, np.int64), np.empty((0, DIM), np.float32))], start[:9])


def test_no_two_rows_start_alike_and_none_is_far_from_an_item(recording):
    vectors = Catalog(recording, ROWS).vectors
    assert len(np.unique(vectors, axis=0)) == len(vectors) == ROWS
    assert (vectors[500:ITEMS] == recording.start[500:]).all()
    np.testing.assert_allclose((vectors @ recording.start.T).max(axis=1), 1, atol=0.01)


def test_the_first_pass_moves_the_recorded_rows_and_the_next_ones_others(recording):
    catalog = Catalog(recording, ROWS)
    before = catalog.vectors.copy()
    rows, moved = catalog.next()
    assert rows.tolist() == recording.updates[0].rows.tolist()
    np.testing.assert_allclose(moved, unit(before[rows] + recording.updates[0].step))
    assert (catalog.vectors[rows] == moved).all()
    for _ in range(29):
        catalog.next()
    again, _ = catalog.next()  # the recorded call without rows is none
    assert len(again) == 20
    assert again.tolist() != rows.tolist()


def test_recall_is_the_share_of_the_best_that_were_found():
    vectors = unit(np.random.default_rng(0).normal(size=(500, DIM)))
    index = LiveIndex(DIM, CONFIG)
    index.update(np.arange(500), vectors)
    assert probe(index, vectors[:2], vectors).tolist() == [1, 1]
    best = np.argsort(-(vectors[:1] @ vectors.T)[0])
    index.delete(best[:30])  # the benchmark knows nothing of it
    assert probe(index, vectors[:1], vectors).tolist() == [pytest.approx(0.7)]


def test_rows_that_their_own_vector_does_not_find_are_counted(recording):
    catalog = Catalog(recording, ROWS)
    index = LiveIndex.build(np.arange(ROWS), catalog.vectors, CONFIG)
    index.delete(np.array([3, 700, 950]))
    assert unreachable(index, catalog, np.arange(ROWS)) == 3
    assert unreachable(index, catalog, np.arange(100, 800)) == 1


def test_a_drive_counts_every_row_and_goes_on_behind_the_last_rebuild(recording, monkeypatch):
    monkeypatch.setattr(benchmark, "ROWS", ROWS)
    monkeypatch.setattr(benchmark, "MIN_DELTA", 0)
    catalog = Catalog(recording, ROWS)
    index = LiveIndex(DIM, CONFIG, build_inline=True)
    index.update(np.arange(ROWS), catalog.vectors)
    assert index.maintain()
    fill_delta(index, catalog, CONFIG)
    assert 142 < index.delta_size <= 162
    effort = replace(benchmark.QUICK, rebuilds=1, after=7)
    driven = drive(index, catalog, recording.queries, 1e9, effort, float("inf"))
    assert driven.rebuilds == index.rebuilds - 1 == 1
    # As late as it is, it searches after every fifth update and after a swap, and no more.
    assert driven.refreshed / 100 <= len(driven.wall_ms) <= driven.refreshed / 100 + 2
    assert 0 < driven.busy_s < driven.took_s
    assert len(driven.recalls) >= 2
    assert min(recalls.mean() for recalls in driven.recalls) >= 0.99
    assert drive(index, catalog, recording.queries, 1e9, effort, 0.0).refreshed == 7 * 20  # late, but not for nothing


def test_a_drive_keeps_to_its_pace(recording):
    catalog = Catalog(recording, ROWS)
    index = LiveIndex(DIM, CONFIG, build_inline=True)
    index.update(np.arange(ROWS), catalog.vectors)
    driven = drive(
        index, catalog, recording.queries, 2000, replace(benchmark.QUICK, rebuilds=0, after=10), float("inf")
    )
    assert driven.took_s >= 0.1


def test_hnswlib_gets_the_same_updates(recording):
    graph = hnswlib.Index(space="ip", dim=DIM)
    graph.init_index(ROWS)
    catalog = Catalog(recording, ROWS)
    graph.add_items(catalog.vectors, np.arange(ROWS))
    assert inplace_per_s(graph, catalog, 0.01) > 0
    assert graph.element_count == ROWS
    np.testing.assert_allclose(graph.get_items(np.arange(ROWS)), catalog.vectors, atol=1e-6)
