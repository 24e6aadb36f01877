"""The judge against plain sets, and intervals against the known spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.trainer.evaluation.logs import Row, log_of, rows
from trainer.data.log import Questions
from trainer.evaluation.metrics import PARTS, Comparison, Judge, compare
from trainer.evaluation.ranked import rank
from trainer.evaluation.splits import prequential

ITEMS = 6


@given(log=rows(), seed=st.integers(0, 99), batch=st.integers(1, 9))
def test_figures_are_means_over_questions_of_plain_sets(log: list[Row], seed: int, batch: int) -> None:
    events = log_of(log)
    assume(log[0][3] < log[round(len(log) / 2)][3])  # or nothing lies before the split
    split = prequential(events, share=0.5)
    asked = split.questions
    scores = np.random.default_rng(seed).integers(0, 3, (len(asked), ITEMS)).astype(np.float32)
    lists = rank(scores, asked, events, 3)
    judge = Judge(events, split.train, (1, 3))
    for begin in range(0, len(asked), batch):
        judge.add(asked.select(slice(begin, begin + batch)), lists[begin : begin + batch])
    figures = judge.figures(resamples=5)
    assume(len(asked))

    trained = {log[at][2] for at in split.train}
    earned: dict[str, list[tuple[float, float, float]]] = {part: [] for part in ("", *PARTS)}
    for at in range(len(asked)):
        targets = {log[position][2] for position in asked.targets(at)}
        before = {log[position][2] for position in asked.history(at)}
        parts = {
            "": targets,
            "warm": targets & trained,
            "cold": targets - trained,
            "repeat": targets & before,
            "new": targets - before,
            "cold_new": targets - before - trained,
        }
        for part, wanted in parts.items():
            if wanted:
                places = [place for place, item in enumerate(lists[at].tolist()) if item in wanted]
                first = 1 / (places[0] + 1) if places else 0.0
                earned[part].append((float(bool(places)), len(places) / len(wanted), first))
    for part, each in earned.items():
        end = f"_{part}" if part else ""
        assert figures[f"questions{end}"] == len(each)
        if each:
            got = [figures[f"{name}@3{end}"] for name in ("hr", "recall", "mrr")]
            assert got == pytest.approx(np.mean(each, axis=0).tolist(), rel=1e-5)
        else:
            assert f"hr@3{end}" not in figures


def test_an_item_twice_in_a_basket_counts_once() -> None:
    events = log_of([(0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 2, 1)])
    split = prequential(events, share=0.5)
    judge = Judge(events, split.train, (2,))
    judge.add(split.questions, np.array([[1, 5]], np.int32))
    figures = judge.figures()
    assert (figures["recall@2"], figures["precision@2"], figures["hr@2"], figures["mrr@2"]) == (0.5, 0.5, 1.0, 1.0)
    assert figures["ndcg@2"] == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_one_basket_counts_as_repeated_and_as_new_and_as_cold() -> None:
    events = log_of([(0, 0, 0, 0), (1, 1, 1, 0), (0, 0, 0, 1), (0, 0, 1, 1), (0, 0, 2, 1)])
    split = prequential(events, share=0.6)
    judge = Judge(events, split.train, (2,))
    judge.add(split.questions, np.array([[2, 0]], np.int32))
    figures = judge.figures()
    assert [figures[f"questions_{part}"] for part in PARTS] == [1, 1, 1, 1, 1]
    assert [figures[f"recall@2_{part}"] for part in PARTS] == [0.5, 1.0, 1.0, 0.5, 1.0]
    assert [figures[f"mrr@2_{part}"] for part in PARTS] == [0.5, 1.0, 0.5, 1.0, 1.0]


def test_empty_lists_earn_nothing_and_a_judge_without_questions_has_no_figures() -> None:
    events = log_of([(0, 0, 0, 0), (0, 0, 1, 1)])
    split = prequential(events, share=0.5)
    judge = Judge(events, split.train, (1, 3))
    assert judge.figures() == {"questions": 0}
    judge.add(split.questions, np.full((1, 3), -1, np.int32))
    figures = judge.figures()
    assert all(
        figures[f"{name}@3"] == 0 for name in ("precision", "recall", "hr", "ndcg", "mrr", "coverage", "novelty")
    )


def test_lists_fit_the_questions_and_the_largest_k() -> None:
    events = log_of([(0, 0, 0, 0), (0, 0, 1, 1)])
    split = prequential(events, share=0.5)
    with pytest.raises(ValueError, match="lists must be 1 of at least 3, got"):
        Judge(events, split.train, (3,)).add(split.questions, np.zeros((1, 2), np.int32))
    with pytest.raises(ValueError, match="ks must be numbers >= 1"):
        Judge(events, split.train, (0,))


def test_intervals_hold_the_mean_and_are_as_wide_as_the_spread() -> None:
    size = 2_000
    events = log_of([(0, 0, 0, 0), (0, 0, 1, 1)])
    asked = Questions(np.arange(2), *(np.full(size, at) for at in (0, 1, 2)))
    hit = np.random.default_rng(1).random(size) < 0.3
    judge = Judge(events, np.array([0]), (1,))
    judge.add(asked, np.where(hit, 1, 2).astype(np.int32)[:, None])
    figures = judge.figures()
    low, high = figures["intervals"]["hr@1"]
    assert low < figures["hr@1"] < high
    assert high - low == pytest.approx(2 * 1.96 * hit.std() / math.sqrt(size), rel=0.2)
    assert judge.figures()["intervals"] == figures["intervals"]
    assert judge.values()["hr@1"].dtype == np.float32
    assert judge.values()["hr@1"].tolist() == hit.tolist()
    assert set(figures["intervals"]) == {"hr@1", "ndcg@1", "recall@1", "mrr@1"}


def test_a_comparison_is_paired() -> None:
    random = np.random.default_rng(0)
    b = (random.random(1_000) < 0.2).astype(np.float32)
    assert compare(2 * b, b) == Comparison(2.0, 2.0, 2.0)  # each draw moves both alike
    other = compare((random.random(1_000) < 0.2).astype(np.float32), b)
    assert other.low < other.ratio < other.high
    assert other.low < 1 < other.high
    assert math.isnan(compare(b, 0 * b).ratio)
    with pytest.raises(ValueError, match="the same questions"):
        compare(b, b[:-1])
