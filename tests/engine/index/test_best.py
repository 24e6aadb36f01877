"""The best of some candidates, beside sorting them all."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.index.base import merged, top_k
from engine.index.best import expand_nodes

SCORES = st.sampled_from([-np.inf, -2.0, -1e-30, -0.0, 0.0, 0.25, 0.5, 3.0])
some = st.integers(0, 12)


def scores(n: int):
    return hnp.arrays(np.float32, (2, n), elements=SCORES)


@given(data=st.data(), n=some, m=some, k=st.integers(0, 8))
def test_merging_is_sorting_both_by_score_and_then_by_row(data, n, m, k):
    row = np.array(data.draw(st.permutations(range(n + m))), np.int64)
    own, more = data.draw(scores(n)), data.draw(scores(m))
    at, more_at = np.stack([row[:n]] * 2), np.stack([row[n:]] * 2)
    hits = merged(at, own, more_at, more, k)
    for b in range(2):
        both = [*own[b].tolist(), *more[b].tolist()]
        counting = [(-score, at) for score, at in zip(both, row.tolist(), strict=True)]
        want = sorted((score, at) for score, at in counting if score < np.inf)[:k]
        missing = k - len(want)
        assert hits.row[b].tolist() == [at for _, at in want] + [-1] * missing
        assert hits.score[b].tolist() == [-score for score, _ in want] + [-np.inf] * missing


def test_many_candidates_are_picked_as_few_are():
    draw = np.random.default_rng(1)
    row, score = draw.permutation(10_000), draw.integers(0, 50, (3, 10_000)).astype(np.float32)
    hits = top_k(row, score, 300)
    for b in range(3):
        order = np.lexsort((row, -score[b]))[:300]
        assert hits.row[b].tolist() == row[order].tolist() and hits.score[b].tolist() == score[b, order].tolist()


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    picked=st.lists(st.integers(0, 5), max_size=5, unique=True),
    k=st.integers(0, 10),
)
def test_a_node_stands_for_all_of_its_rows(sizes, picked, k):
    first = np.concatenate([[0], np.cumsum(sizes)])
    members = np.random.default_rng(len(picked)).permutation(int(first[-1]))
    picked = [node for node in picked if node < len(sizes)]
    row, score = np.zeros((1, k), np.int64), np.zeros((1, k), np.float32)
    expand_nodes(
        np.array([picked], np.int64), np.arange(len(picked), dtype=np.float32)[None], first, members, row, score
    )
    want = [(at, 1.0 - place) for place, node in enumerate(picked) for at in members[first[node] : first[node + 1]]][:k]
    want += [(-1, -np.inf)] * (k - len(want))
    assert list(zip(row[0].tolist(), score[0].tolist(), strict=True)) == want
