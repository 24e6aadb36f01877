"""The second stage on a file's log: candidates as the engine gathers them, ordered by the ranker.

Shapes: B questions, C candidates of each, N items, d width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.model.ranker import Ranker
from trainer.data.log import Events, Ints, Questions
from trainer.divergence import check_loss, check_weights
from trainer.encoder import Schedule
from trainer.evaluation.ranked import pairs
from trainer.evaluation.splits import newest_questions
from trainer.losses import listed_softmax
from trainer.walk import Lists

_log = logging.getLogger(__name__)

_STAGE, _SETTING = "ranker", "--set ranker_learning_rate"  # as a divergence names them
_AT_ONCE = 64
_BATCH = 64
_EXAMPLES = 40_000  # questions that the ranker learns from at most, evenly over its part of the log
_KEPT = 400  # candidates of an example at most, what was wanted among them: all of them would not fit into memory
_LEARNED = 192  # of them in a step
_BELOW = 1e4  # puts what is no candidate behind what is one, in the order of the cosine


@dataclass(frozen=True)
class Example:
    """Lists for B questions, and which candidates [B, C] were wanted: at least one of each."""

    lists: Lists
    wanted: Tensor


def ranker_part(events: Events, train: Ints, share: float, *, by_session: bool) -> tuple[Ints, Questions]:
    """What the encoders learn from while the ranker's examples are made, and the questions those are made of.

    The ranker must see encoders that don't know its targets, or it would trust them too much.
    """
    early, questions = newest_questions(events, train, share, by_session=by_session)
    if len(questions) > _EXAMPLES:
        questions = questions.select(np.arange(_EXAMPLES) * len(questions) // _EXAMPLES)
    return early, questions


def make_examples(
    lists_of: Callable[[Questions], Lists],
    fold: Callable[[Ints], None],
    events: Events,
    questions: Questions,
    rest: Ints,
    *,
    follows: bool,
    seed: int,
) -> tuple[list[Example], Ints]:
    """Lists of the questions, in log order, and what of `rest` the state has not taken in.

    Args:
        lists_of: from the state as it is.
        fold: takes events into the state.
        rest: training events that the state lacks, rising: nothing else may reach it.
        follows: whether it takes them in as the questions come, or only afterwards.
    """
    kept: list[Example] = []
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, len(questions), _AT_ONCE):
        some = questions.select(slice(first, first + _AT_ONCE))
        if follows:
            until = int(np.searchsorted(rest, some.order[some.cut[0]]))
            fold(rest[:until])
            rest = rest[until:]
        made = as_examples(events, some, lists_of(some), np.ones(len(some), np.bool_))
        kept += [_drawn(example, _KEPT, generator) for example in made]
    return kept, rest


def as_examples(events: Events, questions: Questions, lists: Lists, known: NDArray[np.bool_]) -> list[Example]:
    """Of the lists [B, C] those that hold a target, where it is `known` [B]."""
    row, item = pairs(questions, events, targets=True)
    targets = torch.full((len(questions), int(np.bincount(row).max())), -2)
    place = np.arange(len(row)) - np.searchsorted(row, row)
    targets[row, place] = torch.from_numpy(item)
    wanted = (lists.item[:, :, None] == targets[:, None]).any(-1)
    held = wanted.any(1) & torch.from_numpy(known)
    return [
        Example(Lists(lists.item[part], lists.score[part], lists.features[part]), wanted[part])
        for part in held.nonzero().squeeze(1).split(_BATCH)
        if len(part)  # A mean over no lists at all would be nan.
    ]


def fit_ranker(ranker: Ranker, examples: Sequence[Example], epochs: int, rate: float, seed: int) -> None:
    """Trains in place.

    Raises:
        Diverged: the loss or a weight is not finite any more.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=rate, weight_decay=0.01)
    schedule = Schedule(1.0, epochs * len(examples))
    ranker.train()
    for epoch in range(epochs):
        losses = []
        for at in torch.randperm(len(examples), generator=generator).tolist():
            example = _drawn(examples[at], _LEARNED, generator)
            score = ranker(example.lists.score, example.lists.features)
            loss = listed_softmax(score, example.wanted, example.lists.item >= 0)
            check_loss(loss.item(), _STAGE, schedule.step + 1, _SETTING, rate)
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule.rate()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step += 1
            losses.append(loss.item())
        _log.info("ranker, epoch %d, loss %.4f", epoch + 1, sum(losses) / max(1, len(losses)))
    check_weights(ranker, _STAGE, schedule.step, _SETTING, rate)
    ranker.eval()


@torch.no_grad()
def list_loss(ranker: Ranker, examples: Sequence[Example]) -> float:
    """Mean of what `fit_ranker` minimises, over all candidates of the examples; 0 without any."""
    total = sum(
        float(listed_softmax(ranker(each.lists.score, each.lists.features), each.wanted, each.lists.item >= 0))
        * len(each.wanted)
        for each in examples
    )
    return total / max(1, sum(len(each.wanted) for each in examples))


@torch.no_grad()
def ranked_scores(ranker: Ranker, lists: Lists, cosine: Tensor) -> Tensor:
    """[B, N] the ranker's scores of candidates, and behind them all others in the order of `cosine` [B, N]."""
    score = ranker(lists.score, lists.features)
    there = lists.item >= 0
    row, at = there.nonzero(as_tuple=True)
    scores = cosine - _BELOW
    scores[row, lists.item[row, at]] = score[row, at]
    return scores


def _drawn(example: Example, candidates: int, generator: torch.Generator) -> Example:
    """All that was wanted and some other candidates."""
    lists = example.lists
    chance = torch.rand(lists.item.shape, generator=generator).masked_fill_(lists.item < 0, -1.0)
    chance.masked_fill_(example.wanted, 2.0)
    at = chance.topk(min(candidates, chance.shape[1])).indices
    features = lists.features.gather(1, at[..., None].expand(-1, -1, lists.features.shape[2]))
    return Example(Lists(lists.item.gather(1, at), lists.score.gather(1, at), features), example.wanted.gather(1, at))
