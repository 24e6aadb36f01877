"""Item neighborhoods against counting every pair of items in every session."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.evaluation.logs import log_of
from tests.trainer.evaluation.peers.cases import (
    ITEMS,
    after_every_event,
    check_reads_nothing_else,
    logs,
    of_histories,
    sessions_of,
    with_rest,
)
from trainer.data.log import Events, Ints
from trainer.evaluation.peers import ItemKNN, item_knn


def similarities(log: Events, train: Ints, shrinkage: float) -> dict[int, dict[int, float]]:
    sets = [[int(log.item[at]) for at in positions] for positions in sessions_of(log, train, len(log)).values()]
    found: dict[int, dict[int, float]] = {item: {} for item in range(ITEMS)}
    for i in range(ITEMS):
        for j in range(ITEMS):
            both = sum((items.count(i) > 1) if i == j else (i in items and j in items) for items in sets)
            if both:
                norm = sqrt(sum(i in items for items in sets) * sum(j in items for items in sets))
                found[i][j] = both / norm * both / (both + shrinkage)
    return found


@pytest.mark.parametrize(("block", "sparse"), [(1, 0), (1 << 22, 0), (20, 1 << 22)])
@given(case=logs(), k=st.integers(1, ITEMS), shrinkage=st.sampled_from([0.0, 2.0]), decay=st.sampled_from([0.5, 1.0]))
@settings(max_examples=25, deadline=None)
def test_sums_the_similarities_of_the_nearest(
    block: int, sparse: int, case: tuple[Events, Ints], k: int, shrinkage: float, decay: float
) -> None:
    log, train = case
    questions = after_every_event(log)
    scorer = ItemKNN(k, shrinkage, decay)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_knn, "_BLOCK", block)
        patch.setattr(item_knn, "_SPARSE", sparse)
        scorer.fit(log, train)
    scores = scorer.score(questions)
    all_neighbors = similarities(log, train, shrinkage)
    for at in range(len(questions)):
        total: dict[int, float] = {}
        for age, item in enumerate(log.item[questions.history(at)][::-1].tolist()):
            near = sorted(all_neighbors[item].items(), key=lambda each: (-each[1], each[0]))[:k]
            for other, similarity in near:
                total[other] = total.get(other, 0) + decay**age * similarity
        assert scores[at].tolist() == pytest.approx(with_rest(total, log, train), rel=1e-5)


def test_three_sessions_by_hand() -> None:
    # 1 is in all three sessions, 2 in two and 3 in one, which has it twice.
    sessions = [0, 0, 1, 1, 2, 2, 2]
    items = [1, 2, 1, 2, 1, 3, 3]
    log = log_of([(session, session, item, 0.0) for session, item in zip(sessions, items, strict=True)])
    scorer = ItemKNN(k=5, shrinkage=0.0, decay=0.5)
    scorer.fit(log, np.arange(7))
    scores = scorer.score(of_histories([[0], [0, 6]]))
    assert scores[0, 1] < 0  # nobody has 1 twice
    assert scores[0, 2:4].tolist() == pytest.approx([2 / sqrt(6), 1 / sqrt(3)])
    assert scores[1, 1:4].tolist() == pytest.approx([1 / sqrt(3), 0.5 * 2 / sqrt(6), 1 + 0.5 / sqrt(3)])


def test_reads_nothing_but_what_it_was_given() -> None:
    check_reads_nothing_else(ItemKNN(), ItemKNN())


@pytest.mark.parametrize("wrong", [{"k": 0}, {"shrinkage": -1.0}, {"decay": 0.0}, {"decay": 1.5}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        ItemKNN(**wrong)  # type: ignore[arg-type]
