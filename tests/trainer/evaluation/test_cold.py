"""Items held out by their ids, numbers that say nothing, and scorers that stop learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.evaluation.logs import log_of
from trainer.data.log import Questions
from trainer.evaluation.cold import Frozen, held_out, numbered_by_hash
from trainer.evaluation.peers import DecayedPopularity

IDS = [f"item {at}" for at in range(5000)]
LOG = log_of([(at % 3, at % 3, at % 7, float(at)) for at in range(40)], items=50)


def test_an_item_is_held_out_by_its_id_whatever_else_the_log_holds() -> None:
    held = dict(zip(IDS, held_out(IDS, 0.1), strict=True))
    assert sum(held.values()) == pytest.approx(500, abs=70)
    some = IDS[::-3]
    assert held_out(some, 0.1).tolist() == [held[one] for one in some]
    assert not (held_out(IDS, 0.1) & ~held_out(IDS, 0.2)).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_leaves_something_on_both_sides(share: float) -> None:
    with pytest.raises(ValueError, match=f"cold share must be above 0 and below 1, got {share}"):
        held_out(IDS, share)


def test_numbers_by_hash_keep_the_log_and_forget_who_came_first() -> None:
    found = numbered_by_hash(LOG)
    assert [found.items[at] for at in found.item] == [LOG.items[at] for at in LOG.item]
    assert sorted(found.items) == sorted(LOG.items)
    order = np.random.default_rng(1).permutation(50)
    other = replace(LOG, item=np.argsort(order)[LOG.item], items=[LOG.items[at] for at in order])
    assert numbered_by_hash(other).items == found.items != LOG.items


def test_the_lowest_numbers_are_not_those_of_the_items_held_out() -> None:
    log = numbered_by_hash(replace(LOG, items=IDS))
    assert held_out(log.items, 0.1)[:500].sum() == pytest.approx(50, abs=25)


def test_what_is_frozen_scores_as_it_did_when_it_was_fitted() -> None:
    train, nobody = np.arange(20), Questions(*[np.zeros(1, np.int64)] * 4)
    live, fitted, frozen = DecayedPopularity(), DecayedPopularity(), Frozen(DecayedPopularity())
    for scorer in (live, fitted, frozen):
        scorer.fit(LOG, train)
    for scorer in (live, frozen):
        scorer.observe(np.arange(20, 40))
    assert frozen.name == "popularity_frozen"
    np.testing.assert_array_equal(frozen.score(nobody), fitted.score(nobody))
    assert (live.score(nobody) != fitted.score(nobody)).any()
