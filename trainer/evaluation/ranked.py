"""From scores to lists of items, and from lists to what each question earned.

Shapes: B questions, N items, K places of a list, H events in all histories together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions

QUALITY = ("precision", "recall", "hr", "ndcg", "mrr")


def rank(
    scores: NDArray[np.float32], questions: Questions, events: Events, k: int, filter_seen: bool = False
) -> NDArray[np.int32]:
    """[B, k] items by falling score [B, N], equal scores by rising number; -1 where no item with a score is left.

    With `filter_seen` the items of the history are no answers.
    """
    if np.isnan(scores).any():
        raise ValueError("scores must be numbers, got NaN")
    rows, count = scores.shape
    if filter_seen:
        row, item = pairs(questions, events)
        scores = scores.copy()
        scores[row, item] = -np.inf
    kept = min(k, count)
    top = np.argpartition(scores, count - kept, axis=1)[:, count - kept :].astype(np.int32)  # [B, kept]
    edge = np.take_along_axis(scores, top, axis=1).min(axis=1)  # [B] the lowest score that made it
    # Which of the items with the score of the edge made it is up to the partition, unless all of them did.
    tied = np.count_nonzero(scores >= edge[:, None], axis=1) > kept
    for at in np.flatnonzero(tied & (edge > -np.inf)):
        above = np.flatnonzero(scores[at] > edge[at])
        equal = np.flatnonzero(scores[at] == edge[at])
        top[at] = np.concatenate([above, equal[: kept - len(above)]])
    top.sort(axis=1)
    score = np.take_along_axis(scores, top, axis=1)
    by_score = np.argsort(-score, axis=1, kind="stable")
    lists = np.full((rows, k), -1, np.int32)
    score = np.take_along_axis(score, by_score, axis=1)
    lists[:, :kept] = np.where(score == -np.inf, -1, np.take_along_axis(top, by_score, axis=1))
    return lists


def pairs(questions: Questions, events: Events, *, targets: bool = False) -> tuple[Ints, Ints]:
    """Question and item, both [H], of every event of the histories, or of the targets; repeats included."""
    first, end = (questions.cut, questions.end) if targets else (questions.first, questions.cut)
    length = end - first
    offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    item = events.item[questions.order[np.repeat(first, length) + offset]]
    return np.repeat(np.arange(len(length)), length), item


def hits(lists: NDArray[np.int32], row: Ints, item: Ints, items: int) -> NDArray[np.bool_]:
    """[B, K] whether a place of the lists holds one of the items wanted by its row."""
    place = np.arange(len(lists))[:, None] * items + lists
    return np.isin(place, row * items + item) & (lists >= 0)


def earned(lists: Ints, targets: Ints, ks: Sequence[int]) -> dict[str, NDArray[np.float32]]:
    """What each question earned, [B] by name@k, from its list [B, n] and its targets [B, T], both padded below 0."""
    hit = np.zeros((len(lists), max(ks)), np.bool_)
    listed = lists[:, : max(ks)]
    hit[:, : listed.shape[1]] = ((listed[:, :, None] == targets[:, None]) & (listed >= 0)[:, :, None]).any(-1)
    same = targets[:, :, None] == targets[:, None]
    once = same.argmax(2) == np.arange(targets.shape[1])  # an item twice counts once
    return quality(hit, ((targets >= 0) & once).sum(1), ks)


def quality(hit: NDArray[np.bool_], wanted: Ints, ks: Sequence[int]) -> dict[str, NDArray[np.float32]]:
    """What each question earned, [B] by name@k, from its hits [B, K] and how many items it wanted [B].

    The ideal list of NDCG holds as many of the wanted items as fit in k places. Precision counts empty places.
    """
    gain = 1 / np.log2(np.arange(2, max(ks) + 2))  # [K]
    ideal = np.concatenate([[0], np.cumsum(gain)])
    figures: dict[str, NDArray[np.float32]] = {}
    for k in ks:
        found = hit[:, :k].sum(axis=1)
        some = found > 0
        first = hit[:, :k].argmax(axis=1)  # 0 where there is none
        each = {
            "precision": found / k,
            "recall": found / wanted,
            "hr": some,
            "ndcg": hit[:, :k] @ gain[:k] / ideal[np.minimum(k, wanted)],
            "mrr": np.where(some, 1 / (first + 1), 0),
        }
        figures |= {f"{name}@{k}": each[name].astype(np.float32) for name in QUALITY}
    return figures
