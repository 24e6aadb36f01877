from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from engine.features.table import FEATURES
from engine.signals import Stopped
from tests.trainer.planted import planted_log, replayed, small_config
from trainer.data.log import Questions
from trainer.dataset import Histories
from trainer.forward import ItemForward
from trainer.progress import Progress
from trainer.ranking import Examples, fit_ranker, joined, make_examples, sampled, with_begun
from trainer.start import start_weights, words

CONFIG = small_config(ranker_samples=10**9)


def examples_of(item: list[list[int]], wanted: list[list[int]]) -> Examples:
    """Score and features that name their item; below 0 there is none."""
    rows = torch.tensor(item)
    hit = torch.stack([torch.isin(row, torch.tensor(want)) for row, want in zip(rows, wanted, strict=True)])
    return Examples(rows.float(), rows[..., None].expand(-1, -1, 3).half(), hit & (rows >= 0), rows >= 0)


def test_a_draw_keeps_what_was_wanted_and_takes_candidates_before_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = examples_of([[3, 8, 9, 4, -1, -1], [7, 1, 2, 5, 6, 0]], [[9], [0, 5]])
    seen = set()
    for _ in range(50):
        drawn = whole.drawn(3, generator)
        items = drawn.score.int().tolist()
        for row, wanted in zip(items, ({9}, {0, 5}), strict=True):
            assert len(row) == len(set(row)) == 3 and wanted <= set(row) and -1 not in row
        assert torch.equal(drawn.features[..., 1].float(), drawn.score)
        assert drawn.wanted.sum(1).tolist() == [1, 2] and bool(drawn.there.all())
        seen.update(items[0] + items[1])
    assert seen == set(range(10))


def test_a_draw_of_more_than_there_are_takes_all() -> None:
    drawn = examples_of([[3, 8, -1]], [[8]]).drawn(10, torch.Generator())
    assert sorted(drawn.score[0].tolist()) == [-1, 3, 8] and drawn.there.sum() == 2


def test_lists_of_any_width_are_joined() -> None:
    whole = joined([examples_of([[1, 2]], [[2]]), examples_of([[3, 4, 5], [6, 7, -1]], [[3], [7]])])
    assert whole.score.shape == (3, 3)
    assert whole.there.tolist() == [[True, True, False], [True] * 3, [True, True, False]]
    assert whole.wanted.sum(1).tolist() == [1, 1, 1] and not whole.wanted[0, 2]


def test_examples_are_lists_that_hold_what_came_next_with_the_features_of_serving() -> None:
    data = replayed(planted_log(400)).data()
    histories = Histories(data.log)
    weights = start_weights(data, 300, CONFIG, None)
    forward = ItemForward(weights.model.eval(), words(data.item_ids, weights.vocabulary), data.content)
    questions = histories.questions(300, 400)
    made = make_examples(forward, data, histories, questions, threading.Event(), Progress())
    assert made is not None and 0 < len(made) <= len(questions)
    assert made.features.shape[2] == FEATURES
    assert bool((made.wanted.sum(1) == 1).all()) and not bool((made.wanted & ~made.there).any())
    before = forward.model.ranker.score.weight.clone()
    fit_ranker(forward, made, CONFIG, threading.Event(), Progress())
    assert not torch.equal(forward.model.ranker.score.weight, before)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        fit_ranker(forward, made, CONFIG, stop, Progress())


def test_a_sample_of_questions_is_drawn_by_chance_and_stays_in_log_order() -> None:
    data = replayed(planted_log(400)).data()
    questions = Histories(data.log).questions(0, 400)
    places = {cut: at for at, cut in enumerate(questions.cut.tolist())}
    some = [places[cut] for cut in sampled(questions, 100, seed=1).cut.tolist()]
    assert some == sorted(set(some)) and len(some) == 100
    assert {at % 2 for at in some} == {0, 1}  # of a log of pairs, the first as well as the second of each
    assert [places[cut] for cut in sampled(questions, 100, seed=2).cut.tolist()] != some
    assert len(sampled(questions, 10**9, seed=1)) == len(questions)


def test_a_basket_is_asked_before_it_and_some_times_within_it() -> None:
    order = np.arange(9_000)
    size = np.tile([1, 2, 6], 1_000)
    end = size.cumsum()
    questions = Questions(order, np.zeros(3_000, np.int64), end - size, end)
    asked = with_begun(questions, most=10**6, times=2, seed=1)
    places = [(int(cut), int(last)) for cut, last in zip(asked.cut, asked.end, strict=True)]
    assert len(set(places)) == len(places) and (np.diff(order[asked.cut]) > 0).all()
    known: dict[int, list[int]] = {last: [] for last in end.tolist()}
    for cut, last in places:
        known[last].append(cut)
    for items, last in zip(size.tolist(), end.tolist(), strict=True):
        assert known[last][0] == last - items and len(known[last]) == min(items, 3)
    within = [cut - (last - 6) for cut, last in places if size[end.searchsorted(last)] == 6]
    assert all(300 < within.count(place) < 500 for place in range(1, 6))  # drawn evenly
    assert with_begun(questions, most=10**6, times=0, seed=1).cut.tolist() == questions.cut.tolist()
    # Of few questions a fifth is asked within; where baskets are few, they are all asked, and the rest within them.
    starts = set((end - size).tolist())
    for most, before in ((1_000, 800), (3_500, 2_800), (4_000, 3_000)):
        some = with_begun(questions, most=most, times=2, seed=1)
        assert len(some) == most and sum(cut in starts for cut in some.cut.tolist()) == before
    # A question within a basket stands behind the questions of other users that came before it in the log.
    apart = Questions(np.array([0, 2, 1]), np.array([0, 2]), np.array([0, 2]), np.array([2, 3]))
    both = with_begun(apart, most=9, times=1, seed=1)
    assert apart.order[both.cut].tolist() == [0, 1, 2] and both.end.tolist() == [2, 3, 2]
