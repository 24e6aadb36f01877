"""Lists and what they earn, against plain sorting and plain counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.evaluation.logs import log_of
from trainer.data.log import Questions
from trainer.evaluation.ranked import hits, pairs, quality, rank

NOTHING = Questions(*[np.zeros(0, np.int64)] * 4)
LOG = log_of([(0, 0, 1, 0), (0, 0, 3, 1), (0, 0, 1, 2), (1, 1, 5, 3), (1, 1, 0, 4)])
SCORE = st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0, np.inf]) | st.floats(width=32, allow_nan=False)


def of(*bounds: tuple[int, int, int]) -> Questions:
    first, cut, end = np.array(bounds, np.int64).reshape(-1, 3).T
    return Questions(np.arange(len(LOG)), first, cut, end)


def plain(scores: list[float], seen: set[int], k: int) -> list[int]:
    left = [item for item, score in enumerate(scores) if item not in seen and score > -math.inf]
    return (sorted(left, key=lambda item: (-scores[item], item)) + [-1] * k)[:k]


@given(
    rows=st.lists(st.lists(SCORE, min_size=6, max_size=6), min_size=3, max_size=3),
    k=st.integers(1, 8),
    filter_seen=st.booleans(),
)
def test_rank_sorts_by_score_and_then_by_number(rows: list[list[float]], k: int, filter_seen: bool) -> None:
    questions, seen = of((0, 2, 3), (3, 4, 5), (0, 0, 1)), [{1, 3}, {5}, set()]
    scores = np.array(rows, np.float32)
    before = scores.copy()
    lists = rank(scores, questions, LOG, k, filter_seen)
    want = [plain(row, hidden if filter_seen else set(), k) for row, hidden in zip(scores.tolist(), seen, strict=True)]
    assert lists.tolist() == want
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("levels", [1, 2, 50])
def test_many_equal_scores_at_the_edge_go_to_the_lower_numbers(levels: int) -> None:
    scores = np.random.default_rng(levels).integers(0, levels, (5, 20_000)).astype(np.float32)
    lists = rank(scores, NOTHING, LOG, 20)
    assert lists.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :20].tolist()


def test_a_row_without_any_answer_is_all_padding() -> None:
    scores = np.full((2, 6), -np.inf, np.float32)
    scores[1, 3] = -5
    assert rank(scores, of((0, 0, 1), (0, 0, 1)), LOG, 3).tolist() == [[-1, -1, -1], [3, -1, -1]]


def test_nan_is_no_score() -> None:
    with pytest.raises(ValueError, match="got NaN"):
        rank(np.full((1, 6), np.nan, np.float32), of((0, 0, 1)), LOG, 3)


def test_large_catalogs_rank_like_a_sort() -> None:
    scores = np.random.default_rng(0).random((8, 92_000), np.float32)
    lists = rank(scores, NOTHING, LOG, 20)
    assert lists.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :20].tolist()


def test_pairs_hold_every_event_of_histories_and_targets() -> None:
    questions = of((0, 2, 3), (3, 3, 5), (0, 3, 3))
    assert [each.tolist() for each in pairs(questions, LOG)] == [[0, 0, 2, 2, 2], [1, 3, 1, 3, 1]]
    assert [each.tolist() for each in pairs(questions, LOG, targets=True)] == [[0, 1, 1], [1, 5, 0]]


LISTS = st.lists(st.permutations([-1, -1, 0, 1, 2, 3, 4, 5]), min_size=1, max_size=5)


@given(
    lists=LISTS, wanted=st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=5, max_size=5), k=st.integers(1, 8)
)
def test_quality_is_what_counting_gives(lists: list[list[int]], wanted: list[set[int]], k: int) -> None:
    wanted = wanted[: len(lists)]
    row = np.array([at for at, items in enumerate(wanted) for _ in items])
    item = np.array([each for items in wanted for each in items])
    hit = hits(np.array(lists, np.int32), row, item, 6)
    figures = quality(hit, np.array([len(items) for items in wanted]), [k, 8])
    for at, (shown, items) in enumerate(zip(lists, wanted, strict=True)):
        places = [place for place, each in enumerate(shown[:k]) if each in items]
        ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(items))))
        want = {
            f"precision@{k}": len(places) / k,
            f"recall@{k}": len(places) / len(items),
            f"hr@{k}": float(bool(places)),
            f"ndcg@{k}": sum(1 / math.log2(place + 2) for place in places) / ideal,
            f"mrr@{k}": 1 / (places[0] + 1) if places else 0.0,
        }
        assert {name: figures[name][at] for name in want} == pytest.approx(want, rel=1e-6)


def test_padding_is_never_a_hit() -> None:
    # Without care, padding of row 1 would stand for the last item of row 0.
    lists = np.array([[0, 1], [-1, -1]], np.int32)
    assert not hits(lists, np.array([0, 1]), np.array([5, 5]), 6).any()


def test_no_events_give_no_pairs() -> None:
    assert [len(each) for each in pairs(NOTHING, LOG)] == [0, 0]
