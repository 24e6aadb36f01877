"""A candidate that moves within its margins changes no list, whatever ranker there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.candidates import HISTORY_BIT, INDEX_BIT
from engine.inference.ranker_forward import Slope
from engine.numeric.dense import cosines
from engine.ranking.list_kernels import Listable, Ranked
from engine.ranking.margins import ROUNDING, margins_of

C, HITS = 12, 6  # candidates, and how many of them the index finds


class Lists:
    """One list of k items, by a score that rises and falls with the cosine, as steeply as the slope allows."""

    def __init__(self, seed: int, k: int, slope: Slope) -> None:
        draw = np.random.default_rng(seed)
        self.k, self.slope = k, slope
        self.cosine = draw.uniform(-0.9, 0.9, C).astype(np.float32)
        self.base = draw.normal(0, 0.5, C)
        self.turn = draw.uniform(-0.9, 0.9, C)  # where each score has its kink
        self.may = draw.random(C) < 0.8

    def score(self, cosine: np.ndarray) -> np.ndarray:
        away = cosine.astype(np.float64) - self.turn
        return self.base + np.where(away > 0, self.slope.most, self.slope.least) * away

    def hits(self, cosine: np.ndarray) -> set[int]:
        return set(np.argsort(-cosine, kind="stable")[:HITS].tolist())

    def page(self, cosine: np.ndarray) -> list[int]:
        """Rows, best first: each column is the row of its number."""
        order = np.argsort(-self.score(cosine), kind="stable")
        return [at for at in order.tolist() if self.may[at]][: self.k]

    def margins(self) -> tuple[np.ndarray, np.ndarray]:
        hits = self.hits(self.cosine)
        floor = np.sort(self.cosine)[-HITS : -HITS + 1].copy()
        page, score = np.array([self.page(self.cosine)]), self.score(self.cosine).astype(np.float32)[None]
        source = np.array([[INDEX_BIT if at in hits else HISTORY_BIT for at in range(C)]])
        none = np.zeros(0, np.bool_)
        listable = Listable(
            np.arange(C)[None], source, np.array([C]), np.zeros(0, np.int64), none, none, np.zeros(2, np.int64)
        )
        count = np.array([page.shape[1]])
        ranked = Ranked(score, page, np.zeros(page.shape, np.float32), np.zeros_like(page), count)
        made = margins_of(listable, self.cosine[None], ranked, np.array([self.k]), floor, self.slope)
        assert made.row.tolist() == list(range(C)) and made.first.tolist() == [0, C]
        return made.low, made.high


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32), k=st.integers(1, C), least=st.floats(-2, 2), wider=st.floats(0, 2),
    part=st.floats(0.001, 0.999),
)  # fmt: skip
def test_a_move_within_the_margins_leaves_the_list_and_what_the_index_finds(seed, k, least, wider, part):
    lists = Lists(seed, k, Slope(least, least + wider))
    low, high = lists.margins()
    before, hits = lists.page(lists.cosine), lists.hits(lists.cosine)
    for at in range(C):
        if not low[at] < high[at]:
            continue
        assert at not in before
        least_cosine, most_cosine = max(-1.0, low[at]), min(1.0, high[at])
        for share in (part, 0.001, 0.999):
            moved = lists.cosine.copy()
            moved[at] = least_cosine + share * (most_cosine - least_cosine)
            if low[at] < moved[at] < high[at]:
                assert (lists.page(moved), lists.hits(moved)) == (before, hits)


@pytest.mark.parametrize("slope", [Slope(0.5, 1.0), Slope(-1.0, -0.5), Slope(-0.5, 0.5), Slope(0.0, 0.0)])
def test_most_candidates_that_are_not_listed_may_move_a_little(slope):
    may, all_ = 0, 0
    for seed in range(100):
        lists = Lists(seed, 2, slope)
        low, high = lists.margins()
        listed = lists.page(lists.cosine)
        assert np.isnan(low[listed]).all() and not np.isnan(np.delete(low, listed)).any()
        free = [at for at in range(C) if at not in listed and lists.may[at]]
        may += sum(low[at] < lists.cosine[at] < high[at] for at in free)
        all_ += len(free)
    assert may > 0.8 * all_


def test_nothing_may_move_where_a_list_has_room():
    lists = Lists(0, 2, Slope(0.5, 1.0))
    lists.may[:] = False
    lists.may[3] = True
    low, high = lists.margins()
    assert not (low < high).any()


@pytest.mark.parametrize("dim", [8, 64, 100, 256, 512])
@pytest.mark.parametrize("lists", [1, 3, 200])
def test_a_product_of_many_lists_is_off_by_less_than_margins_allow_for(dim, lists):
    """Margins are made from the cosines of one list, and are compared with a library's product of all lists."""
    draw = np.random.default_rng(dim)
    for mean in (0.0, 1.0):
        sessions, items = draw.normal(mean, 1, (lists, dim)), draw.normal(mean, 1, (50, dim))
        sessions /= np.linalg.norm(sessions, axis=1, keepdims=True)
        items /= np.linalg.norm(items, axis=1, keepdims=True)
        sessions, items = sessions.astype(np.float32), items.astype(np.float32)
        rows = np.tile(np.arange(50), (lists, 1))
        assert np.abs(sessions @ items.T - cosines(items, rows, sessions)).max() < ROUNDING / 2
