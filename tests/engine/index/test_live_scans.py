"""When a live index asks its graph, and when it scans."""

from __future__ import annotations

import numpy as np
import pytest

from engine.index.live import LiveIndex
from tests.engine.index.test_live import CONFIG, THOROUGH, random_unit


@pytest.mark.parametrize(("scan_below", "first"), [(0, 17), (800, 800)])
def test_a_catalog_gets_a_graph_from_the_configured_size_and_from_more_rows_than_a_search_sees_anyway(
    scan_below, first
):
    config = CONFIG.model_copy(update={"scan_below": scan_below})
    index = LiveIndex(8, config, build_inline=True)
    index.update(np.arange(first - 1), random_unit(0, first - 1, 8))
    assert not index.maintain()
    index.update(np.array([first - 1]), random_unit(1, 1, 8))
    assert index.maintain()
    assert LiveIndex.build(np.arange(first - 1), random_unit(0, first - 1, 8), config).delta_size == first - 1
    assert LiveIndex.build(np.arange(first), random_unit(0, first, 8), config).delta_size == 0


def test_a_small_catalog_is_served_by_its_graph_though_a_scan_costs_less(monkeypatch):
    vectors = random_unit(0, 1000, 8)
    index = LiveIndex.build(np.arange(1000), vectors, THOROUGH)
    asked = []
    search = index._graph.search
    index._graph.search = lambda queries, k, *_: asked.append(k) or search(queries, k)
    assert index.search(vectors[:5], 100).row[:, 0].tolist() == list(range(5))
    assert asked == [150]
    # Four times ef_search is as wide as it is followed where a scan costs less.
    index.search(vectors[:1], 600)
    assert asked == [150]


def test_a_graph_whose_searches_all_look_wider_is_asked_now_and_then_and_again_once_they_do_not():
    vectors = random_unit(0, 1000, 8)
    index = LiveIndex.build(np.arange(1000), vectors, THOROUGH)
    search, asked, risen = index._graph.search, [], 1.0

    def searched(queries, k, *_):
        asked.append(k)
        hits = search(queries, k)
        hits.score[:, 0] -= risen  # as though the best had scored less when the graph was built
        return hits

    index._graph.search = searched
    for at in range(1000):
        assert index.search(vectors[at : at + 1], 100).row[0, 0] == at
    assert 20 < len(asked) < 100
    risen = 0.0
    for at in range(1000):
        index.search(vectors[at : at + 1], 100)
    assert len(asked) > 200


def test_half_of_a_small_catalog_starts_a_rebuild():
    index = LiveIndex.build(np.arange(100), random_unit(0, 100, 8), CONFIG)
    index._build_inline = True
    index.update(np.arange(50), random_unit(1, 50, 8))
    assert not index.maintain()
    index.update(np.array([50]), random_unit(2, 1, 8))
    assert index.maintain()
