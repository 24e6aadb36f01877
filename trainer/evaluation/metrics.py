"""Figures of one scorer under one protocol, with intervals, and of two scorers side by side.

Shapes: B questions of a batch, Q in all, N items, K places of a list, M metrics, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions
from trainer.evaluation.exposure import Exposure
from trainer.evaluation.ranked import hits, pairs, quality

PARTS = ("warm", "cold", "repeat", "new", "cold_new")
_WITH_INTERVAL = ("hr", "ndcg", "recall", "mrr")
_RESAMPLES = 200
_LEVEL = (2.5, 97.5)  # percentiles: 95 of 100 lie between


class Judge:
    """Takes lists batch by batch, and says how good they were.

    Targets are sets: an item twice in a basket counts once. A part of the questions wants only a part of the targets:
    warm those with an event to train on and cold those without, repeat those of the question's own history and new
    the others, cold_new those that are both. A question counts in every part of which it has a target.
    """

    def __init__(
        self,
        events: Events,
        train: Ints,
        ks: Sequence[int] = (10, 20),
        categories: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Takes the categories by item id, where there are any."""
        if not ks or min(ks) < 1:
            raise ValueError(f"ks must be numbers >= 1, got {list(ks)}")
        self.ks = tuple(ks)
        self._events = events
        self._exposure = Exposure(events, train, self.ks, categories)
        self._warm = np.bincount(events.item[train], minlength=len(events.items)) > 0  # [N]
        self._batches: dict[str, list[dict[str, NDArray[np.float32]]]] = {part: [] for part in ("", *PARTS)}

    def add(self, questions: Questions, lists: NDArray[np.int32]) -> None:
        """Judges the lists [B, K] given to B questions, of at least as many places as the largest k."""
        if lists.shape[0] != len(questions) or lists.shape[1] < max(self.ks):
            raise ValueError(f"lists must be {len(questions)} of at least {max(self.ks)}, got {lists.shape}")
        lists = lists[:, : max(self.ks)]
        items = len(self._events.items)
        row, item = pairs(questions, self._events, targets=True)
        wanted = np.unique(row * items + item)
        row, item = np.divmod(wanted, items)
        before_row, before_item = pairs(questions, self._events)
        self._exposure.add(lists, hits(lists, before_row, before_item, items))
        repeat = np.isin(wanted, before_row * items + before_item)
        warm = self._warm[item]
        chosen = {"": np.ones_like(warm), "warm": warm, "cold": ~warm, "repeat": repeat, "new": ~repeat}
        chosen["cold_new"] = ~warm & ~repeat
        for part, of in chosen.items():
            count = np.bincount(row[of], minlength=len(questions))
            some = count > 0
            hit = hits(lists, row[of], item[of], items)
            self._batches[part].append(quality(hit[some], count[some], self.ks))

    def values(self, part: str = "") -> dict[str, NDArray[np.float32]]:
        """[Q] what each question earned by name@k, in the order of adding; of a part only the questions in it."""
        batches = self._batches[part] or [
            quality(np.zeros((0, max(self.ks)), np.bool_), np.zeros(0, np.int64), self.ks)
        ]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def figures(self, resamples: int = _RESAMPLES, seed: int = 0) -> dict[str, Any]:
        """All figures by name@k, those of parts by name@k_part, and how many questions there were.

        A part without a question has no figures. `intervals` has [low, high] by name@k, at 95%, over the questions.
        """
        values = self.values()
        asked = len(next(iter(values.values())))
        figures: dict[str, Any] = {"questions": asked}
        if not asked:
            return figures
        figures |= _means(values) | self._exposure.figures()
        for part in PARTS:
            of_part = self.values(part)
            figures[f"questions_{part}"] = len(next(iter(of_part.values())))
            if figures[f"questions_{part}"]:
                figures |= {f"{name}_{part}": mean for name, mean in _means(of_part).items()}
        names = [f"{name}@{k}" for name in _WITH_INTERVAL for k in self.ks]
        means = np.stack(
            list(_resampled(np.stack([values[name] for name in names], axis=1), resamples, seed))
        )  # [R, M]
        low, high = np.percentile(means, _LEVEL, axis=0)
        figures["intervals"] = {name: [float(low[at]), float(high[at])] for at, name in enumerate(names)}
        return figures


@dataclass(frozen=True)
class Comparison:
    """How many times as good one scorer is as another, and the 95% interval of that; NaN where the other has 0."""

    ratio: float
    low: float
    high: float


def compare(a: NDArray[np.float32], b: NDArray[np.float32], resamples: int = _RESAMPLES, seed: int = 0) -> Comparison:
    """Mean of `a` over mean of `b`, both [Q] of the same questions in the same order, resampled together."""
    if a.shape != b.shape or not len(a):
        raise ValueError(f"two scorers must have answered the same questions, got {a.shape} and {b.shape}")
    means = np.stack(list(_resampled(np.stack([a, b], axis=1), resamples, seed)))  # [R, 2]
    whole = a.mean(dtype=np.float64), b.mean(dtype=np.float64)
    kept = means[means[:, 1] > 0]  # few hits may all be missed by a draw
    if not len(kept):
        return Comparison(np.nan, np.nan, np.nan)
    low, high = np.percentile(kept[:, 0] / kept[:, 1], _LEVEL)
    return Comparison(float(whole[0] / whole[1]), float(low), float(high))


def _means(values: dict[str, NDArray[np.float32]]) -> dict[str, float]:
    return {name: float(each.mean(dtype=np.float64)) for name, each in values.items()}


def _resampled(values: NDArray[np.float32], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """[M] means of as many questions drawn with replacement, of values [Q, M], R times.

    The draw depends on Q and the seed alone, so scorers that answered the same questions are drawn alike.
    """
    random = np.random.default_rng(seed)
    exact = values.astype(np.float64)
    for _ in range(resamples):
        weight = np.bincount(random.integers(0, len(values), len(values)), minlength=len(values))
        yield weight @ exact / len(values)
