"""ExactIndex against a dictionary and a sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.index import exact
from engine.index.best import score_anew
from engine.index.exact import ExactIndex
from engine.numeric.dense import cosines, rounding

DIM = 3
ROWS = st.integers(0, 12)
# Few distinct vectors, exact in float32: ties are common and every product is exact.
VECTORS = st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, -1), (0.5, 0.5, 0), (0, 0, 0), (-1, 0, 0)])
STEPS = st.one_of(
    st.tuples(st.just("update"), st.lists(st.tuples(ROWS, VECTORS), max_size=8)),
    st.tuples(st.just("delete"), st.lists(ROWS, max_size=5)),
)


def oracle(held: dict[int, tuple[float, ...]], query: np.ndarray, k: int) -> list[tuple[float, int]]:
    scored = [(float(np.dot(query, vector)), row) for row, vector in held.items()]
    return sorted(scored, key=lambda s: (-s[0], s[1]))[:k]


def assert_is_exact(index: ExactIndex, held: dict[int, tuple[float, ...]], k: int) -> None:
    queries = np.array([[1, 0, 0], [0.5, -0.5, 0.25], [0, 0, 0]], np.float32)
    hits = index.search(queries, k)
    assert hits.row.shape == hits.score.shape == (3, k)
    assert (hits.row.dtype, hits.score.dtype) == (np.int64, np.float32)
    for b, query in enumerate(queries):
        expected = oracle(held, query, k)
        n = len(expected)
        assert hits.row[b, :n].tolist() == [row for _, row in expected]
        assert hits.score[b, :n].tolist() == [score for score, _ in expected]
        assert (hits.row[b, n:] == -1).all() and (hits.score[b, n:] == -np.inf).all()


@settings(deadline=None)
@given(steps=st.lists(STEPS, max_size=8), k=st.integers(0, 15))
def test_equals_a_sort_after_any_edits(steps, k):
    index, held = ExactIndex(DIM), {}
    for kind, what in steps:
        if kind == "update":
            index.update(
                np.array([row for row, _ in what], np.int64),
                np.array([vector for _, vector in what], np.float32).reshape(-1, DIM),
            )
            held.update(what)
        else:
            index.delete(np.array(what, np.int64))
            for row in what:
                held.pop(row, None)
        assert index.size == len(held)
        assert sorted(index.rows.tolist()) == sorted(held)
    assert_is_exact(index, held, k)


def test_ties_at_the_last_place_go_to_the_lower_rows():
    index = ExactIndex(DIM)
    index.update(np.arange(500)[::-1], np.tile(np.array([1, 0, 0], np.float32), (500, 1)))
    assert index.search(np.array([[1, 0, 0]], np.float32), 7).row.tolist() == [list(range(7))]


def test_take_returns_vectors_in_the_order_asked_for():
    index = ExactIndex(DIM)
    vectors = np.arange(15, dtype=np.float32).reshape(5, DIM)
    index.update(np.array([9, 2, 700, 4, 5]), vectors)
    index.delete(np.array([2]))
    assert index.take(np.array([[700, 9], [5, 4]])).tolist() == vectors[[[2, 0], [4, 3]]].tolist()


@pytest.mark.parametrize("count", [0, 1, 7])
def test_many_queries_are_scored_in_blocks(monkeypatch, count):
    rng = np.random.default_rng(0)
    index = ExactIndex(DIM)
    index.update(np.arange(20), rng.normal(size=(20, DIM)).astype(np.float32))
    queries = rng.normal(size=(count, DIM)).astype(np.float32)
    whole = index.search(queries, 5)
    monkeypatch.setattr(exact, "_MAX_SCORES", 40)  # two queries a block
    blocks = index.search(queries, 5)
    assert whole.row.shape == (count, 5)
    assert blocks.row.tolist() == whole.row.tolist()
    assert blocks.score.tolist() == whole.score.tolist()


@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("rows", [0, 300])
def test_rows_below_the_floor_are_left_out_and_no_others(monkeypatch, rows, coded):
    monkeypatch.setattr(exact, "CODED_FROM", 1 if coded else 2048)
    rng = np.random.default_rng(0)
    index = ExactIndex(DIM)
    index.update(np.arange(rows), rng.normal(size=(rows, DIM)).astype(np.float32))
    queries = rng.normal(size=(4, DIM)).astype(np.float32)
    whole = index.search(queries, 20)
    floor = whole.score[:, 4].copy()
    for b in range(len(queries)):
        alone = index.search(queries[b : b + 1], 20, floor[b : b + 1])
        assert alone.row[0, :5].tolist() == whole.row[b, :5].tolist()
        assert (alone.row[0, 5:] == -1).all()
    together = index.search(queries, 20, floor)
    assert together.row[:, :5].tolist() == whole.row[:, :5].tolist()
    assert index.search(queries, 20, np.full(4, -np.inf, np.float32)).row.tolist() == whole.row.tolist()


@pytest.mark.parametrize("dim", [3, 64, 100])
@pytest.mark.parametrize("floored", [True, False])
def test_what_is_found_does_not_depend_on_how_the_library_rounds(monkeypatch, dim, floored):
    """Any product that a library may give stands for what it gives on some processor, or beside some other queries."""
    rng = np.random.default_rng(dim)
    # So much alike that the best differ by less than products may be off.
    vectors = (1 + rng.normal(0, 1e-4, (1000, dim))).astype(np.float32) / np.float32(np.sqrt(dim))
    queries = (1 + rng.normal(0, 1e-4, (5, dim))).astype(np.float32) / np.float32(np.sqrt(dim))
    index = ExactIndex(dim)
    index.update(rng.permutation(5000)[:1000], vectors)
    exactly = index.search(queries, 20)
    floor = exactly.score[:, 9].copy() if floored else None
    want = index.search(queries, 20, floor)
    plain = exact.products

    def off(queries, vectors):
        products = plain(queries, vectors)
        most = rounding(dim) * np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
        return (products + 0.9 * most * rng.uniform(-1, 1, products.shape)).astype(np.float32)

    monkeypatch.setattr(exact, "products", off)
    for _ in range(5):
        hits = index.search(queries, 20, floor)
        assert hits.row.tolist() == want.row.tolist()
        assert hits.score.tolist() == want.score.tolist()
        for b in range(5):
            alone = index.search(queries[b : b + 1], 20, None if floor is None else floor[b : b + 1])
            assert alone.row[0].tolist() == want.row[b].tolist() and alone.score[0].tolist() == want.score[b].tolist()


@pytest.mark.parametrize("dim", [3, 8, 32, 33, 64, 100, 256])
def test_all_that_scores_a_row_gives_the_same_number(dim):
    """A scan, a scan by codes, what a graph found, and the cosines of a list: they are compared with each other."""
    rng = np.random.default_rng(dim)
    vectors = rng.normal(size=(3000, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:3] + rng.normal(0, 0.1, (3, dim)).astype(np.float32)
    index = ExactIndex(dim)
    index.update(np.arange(3000), vectors)
    by_codes, by_products = index.search(queries, 50), index._search_all(queries, 50, np.full(3, -np.inf, np.float32))
    assert by_codes.row.tolist() == by_products.row.tolist()
    assert by_codes.score.tolist() == by_products.score.tolist()
    anew, _, _ = score_anew(queries, by_codes, np.ones(3000, np.bool_), index.held(), 50)
    assert anew.tolist() == by_codes.score.tolist()
    assert cosines(vectors, by_codes.row, queries).tolist() == by_codes.score.tolist()
    double = np.einsum("bd,bkd->bk", queries.astype(np.float64), vectors[by_codes.row].astype(np.float64))
    lengths = np.linalg.norm(queries, axis=1)[:, None]
    assert (np.abs(double - by_codes.score) <= rounding(dim) * lengths + 1e-7).all()
