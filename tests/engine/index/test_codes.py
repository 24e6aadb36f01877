"""Picks by codes against a search of the vectors themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.index import codes, exact
from engine.index.exact import ExactIndex

DIM = 16


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch):
    """All that is for catalogs of many thousands happens with hundreds of rows."""
    monkeypatch.setattr(exact, "CODED_FROM", 1)
    monkeypatch.setattr(codes, "_SAMPLE", 32)
    monkeypatch.setattr(codes, "_PICKS", 160)
    monkeypatch.setattr(codes, "_QUERIES", 3)


def vectors_of(kind: str, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIM))
    match kind:
        case "clustered":
            vectors = rng.standard_normal((5, DIM))[rng.integers(0, 5, count)] + 0.05 * vectors
        case "equal":
            vectors = rng.standard_normal((3, DIM))[rng.integers(0, 3, count)]
        case "spiked":  # codes are far from such a vector
            vectors[:, 0] *= 100
        case "rising":  # the best come last, behind what the sample says
            vectors[:, 1:] *= 0.3
            vectors = vectors[np.argsort(vectors[:, 0])]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.random(count) < 0.02] = 0
    return vectors.astype(np.float32)


NO_FLOOR = np.full(16, -np.inf, np.float32)
KINDS = ["random", "clustered", "equal", "spiked", "rising"]


def assert_finds_the_best(index: ExactIndex, queries: np.ndarray, k: int) -> None:
    found, wanted = index.search(queries, k), index._search_all(queries, k, NO_FLOOR[: len(queries)])
    assert found.row.tolist() == wanted.row.tolist() and found.score.tolist() == wanted.score.tolist()
    score = {int(row): index.take(np.array([row]))[0] for row in found.row.ravel() if row >= 0}
    for b, query in enumerate(queries):
        rows = found.row[b][found.row[b] >= 0].tolist()
        assert len(set(rows)) == len(rows) == min(k, index.size)
        np.testing.assert_allclose([score[row] @ query for row in rows], found.score[b, : len(rows)], atol=1e-6)
        order = list(zip((-found.score[b, : len(rows)]).tolist(), rows, strict=True))
        assert order == sorted(order)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 700), k=st.integers(1, 60), batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_no_row_is_missed_whatever_the_vectors_are_like(kind, count, k, batch, seed):
    index = ExactIndex(DIM)
    vectors = vectors_of(kind, count, seed)
    index.update(np.random.default_rng(seed).permutation(2 * count)[:count], vectors)
    queries = np.concatenate([vectors[:1], vectors_of("random", batch, seed + 100)])
    assert_finds_the_best(index, queries, k)


def test_edits_are_followed():
    rng = np.random.default_rng(0)
    index = ExactIndex(DIM)
    for at in range(20):
        rows = rng.integers(0, 400, 60)
        index.update(rows, vectors_of(KINDS[at % len(KINDS)], 60, at))
        index.delete(rng.integers(0, 400, 25))
        assert_finds_the_best(index, vectors_of("random", 4, at), 10)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_below_the_floor_are_left_out_and_no_others(kind):
    index = ExactIndex(DIM)
    index.update(np.arange(500), vectors_of(kind, 500, 0))
    queries = vectors_of("random", 7, 1)
    whole = index._search_all(queries, 20, NO_FLOOR[:7])
    floor = whole.score[:, 4].copy()
    found = index.search(queries, 20, floor)
    for b in range(len(queries)):
        there = whole.score[b] >= floor[b]
        assert found.row[b].tolist() == np.where(there, whole.row[b], -1).tolist()
        assert found.score[b].tolist() == np.where(there, whole.score[b], -np.inf).tolist()


def test_where_too_many_may_be_the_best_all_are_looked_at(monkeypatch):
    index = ExactIndex(DIM)
    index.update(np.arange(600), vectors_of("equal", 600, 0))
    query = vectors_of("equal", 1, 0)
    assert index._codes.pick(query, 600, 7).count.tolist() == [-1]
    assert_finds_the_best(index, query, 7)


def test_codes_that_tell_nothing_apart_are_tried_now_and_then(monkeypatch):
    index, tried = ExactIndex(DIM), []
    pick = codes.Codes.pick
    monkeypatch.setattr(codes.Codes, "pick", lambda *args: (tried.append(at), pick(*args))[1])
    index.update(np.arange(600), vectors_of("equal", 600, 0))
    every = exact._TRY_EVERY
    for at in range(every + 5):
        if at == every:
            index.update(np.arange(600), vectors_of("random", 600, 0))
        assert_finds_the_best(index, vectors_of("equal", 2, 0), 7)
    assert tried == [0, *range(every, every + 5)]


def test_a_guess_that_was_too_high_is_mended(monkeypatch):
    index = ExactIndex(DIM)
    index.update(np.arange(600), vectors_of("random", 600, 0))
    monkeypatch.setattr(codes.Codes, "_bar", lambda self, code, *rest: np.full(len(code), 0.9, np.float32))
    assert_finds_the_best(index, vectors_of("random", 5, 1), 20)


@pytest.mark.parametrize("dim", [3, 8, 17, 64])
def test_products_of_bytes_are_those_of_integers(dim):
    rng = np.random.default_rng(dim)
    left, right = (rng.integers(-127, 128, (n, dim)).astype(np.int8) for n in (5, 33))
    assert codes._products(left, right).tolist() == (left.astype(int) @ right.astype(int).T).tolist()
