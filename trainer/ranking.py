"""Trains the ranker on lists of a slice that the encoders have not seen, made as serving makes them.

Had the encoders been trained on these events, their score would look better than it is on new ones, and the ranker
would trust it too much.

Shapes: B lists, C candidates of each.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.ranking.lists import weigh
from engine.ranking.query import DEFAULT_K, Query
from engine.signals import Stopped
from trainer.config import Recipe
from trainer.data.log import Questions
from trainer.dataset import Histories
from trainer.divergence import check_loss, check_weights
from trainer.forward import ItemForward
from trainer.losses import listed_softmax
from trainer.progress import Progress
from trainer.replay import TrainingData
from trainer.schedule import cosine_rate
from trainer.walk import walk

_BATCH = 64
_KEPT = 256  # candidates kept of a list at most, what was wanted among them: all would not fit into memory
_STAGE, _SETTING = "ranker", "trainer.ranker_learning_rate"  # as a divergence names them
_QUERY = Query("", "", DEFAULT_K)
_SEED = 1
_WITHIN = 5  # one question of so many, at least, is asked within a basket


@dataclass(frozen=True)
class Examples:
    """B lists that hold an item that came next.

    Attributes:
        score: [B, C] float32 session logits.
        features: [B, C, FEATURES] float16: they lie within -4..4, and are most of the memory.
        wanted, there: [B, C] which candidates came next, and whether there is one.
    """

    score: Tensor
    features: Tensor
    wanted: Tensor
    there: Tensor

    def __len__(self) -> int:
        return len(self.score)

    def select(self, at: Tensor) -> Examples:
        """The lists `at`."""
        return Examples(self.score[at], self.features[at], self.wanted[at], self.there[at])

    def drawn(self, candidates: int, generator: torch.Generator) -> Examples:
        """All that was wanted and as many other candidates, drawn evenly, as make up so many."""
        chance = torch.rand(self.score.shape, generator=generator).masked_fill_(~self.there, -1.0)
        chance.masked_fill_(self.wanted, 2.0)
        at = chance.topk(min(candidates, chance.shape[1])).indices  # [B, c]
        features = self.features.gather(1, at[..., None].expand(-1, -1, self.features.shape[2]))
        return Examples(self.score.gather(1, at), features, self.wanted.gather(1, at), self.there.gather(1, at))

    def padded(self, width: int) -> Examples:
        """With places up to `width` where there is no candidate."""
        more = width - self.score.shape[1]
        pad = torch.nn.functional.pad
        return Examples(
            pad(self.score, (0, more)), pad(self.features, (0, 0, 0, more)), pad(self.wanted, (0, more)),
            pad(self.there, (0, more)),
        )  # fmt: skip


def joined(parts: Sequence[Examples]) -> Examples:
    """All of at least one part together."""
    width = max(part.score.shape[1] for part in parts)
    columns = zip(*(vars(part.padded(width)).values() for part in parts), strict=True)
    return Examples(*(torch.cat(column) for column in columns))


def make_examples(
    forward: ItemForward,
    data: TrainingData,
    histories: Histories,
    questions: Questions,
    stop: threading.Event,
    progress: Progress,
) -> Examples | None:
    """Lists for the questions; None where no list holds what came next.

    Raises:
        Stopped: `stop` was set.
    """
    generator = torch.Generator().manual_seed(_SEED)
    kept = []
    for point in walk(forward, data, histories, questions, _QUERY):
        if stop.is_set():
            raise Stopped
        weighed = weigh(point.asked, point.moment, point.model, data.ranking)
        row = torch.from_numpy(weighed.listable.row)
        wanted = (row[:, :, None] == point.targets[:, None]).any(-1)
        held = wanted.any(1).nonzero().squeeze(1)
        if len(held):
            features = torch.from_numpy(weighed.features).half()
            made = Examples(point.model.logits(weighed.cosine), features, wanted, row >= 0)
            kept.append(made.select(held).drawn(_KEPT, generator))
        progress.update("candidates", point.done)
    return joined(kept) if kept else None


def sampled(questions: Questions, most: int, seed: int) -> Questions:
    """At most so many, drawn by chance: every second of a log of pairs would be half of each pair."""
    drawn = np.random.default_rng(seed).permutation(len(questions))[:most]
    return questions.select(np.sort(drawn))


def with_begun(questions: Questions, most: int, times: int, seed: int) -> Questions:
    """At most so many, and among them such as ask again when some of a basket is known: lists are asked for then, too.

    Those fill what the others leave, and get a fifth at least, where there are so many.

    Args:
        times: how often a basket is asked about again, each time with another number of items known.

    Returns:
        In log order.
    """
    before = sampled(questions, most, seed)
    within = sampled(_begun(before, times, seed), max(most - len(before), most // _WITHIN), seed)
    before = sampled(before, most - len(within), seed)
    first, cut, end = (
        np.concatenate([getattr(one, name) for one in (before, within)]) for name in ("first", "cut", "end")
    )
    both = Questions(questions.order, first, cut, end)
    return both.select(np.argsort(both.order[both.cut], kind="stable"))


def _begun(questions: Questions, times: int, seed: int) -> Questions:
    """The rest of each basket, asked at so many places within it."""
    size = questions.end - questions.cut
    at = np.repeat(np.arange(len(size)), size)
    known = np.arange(len(at)) - np.repeat(size.cumsum() - size, size)
    chance = np.where(known == 0, -1.0, np.random.default_rng(seed).random(len(at)))
    drawn = np.lexsort((chance, at))[(known > 0) & (known <= times)]  # in each basket its start comes first
    at, known = at[drawn], known[drawn]
    return Questions(questions.order, questions.first[at], questions.cut[at] + known, questions.end[at])


def fit_ranker(
    forward: ItemForward, examples: Examples, config: Recipe, stop: threading.Event, progress: Progress
) -> None:
    """Trains `forward.model.ranker` in place.

    Raises:
        Stopped: `stop` was set.
        Diverged: the loss or a weight is not finite any more.
    """
    ranker, rate = forward.model.ranker.train(), config.ranker_learning_rate
    ranker.drop.p = config.ranker_dropout
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(config.seed)
    steps, step = config.ranker_epochs * -(-len(examples) // _BATCH), 0
    for _ in range(config.ranker_epochs):
        for at in torch.randperm(len(examples), generator=generator).split(_BATCH):
            if stop.is_set():
                raise Stopped
            some = examples.select(at).drawn(config.ranker_candidates, generator)
            loss = listed_softmax(ranker(some.score, some.features.float()), some.wanted, some.there)
            check_loss(loss.item(), _STAGE, step + 1, _SETTING, rate)
            for group in optimizer.param_groups:
                group["lr"] = rate * cosine_rate(step / steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            progress.update("ranker", step / steps, f"loss {loss.item():.3f}")
    check_weights(ranker, _STAGE, step, _SETTING, rate)
    ranker.eval()
