"""Item neighborhoods: items that come in the same sessions, by the cosine between their columns.

Sarwar, Karypis, Konstan and Riedl, "Item-based collaborative filtering recommendation algorithms", WWW 2001; Linden,
Smith and York, "Amazon.com recommendations", IEEE Internet Computing 2003. The shrinkage is that of Bell and Koren,
ICDM 2007.

Shapes: B questions, N items, R pairs of session and item, P similarities kept, L events of a history.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions
from trainer.evaluation.peers.popularity import rank_rest
from trainer.evaluation.peers.session_index import spans

_BLOCK = 1 << 22  # pairs of items that are counted at once
_SPARSE = 8  # with more places per pair than this, sorting is cheaper than a count of every place


class ItemKNN:
    """The similarities of the k nearest neighbors of every item, summed over the history.

    similarity(i, j) = both / sqrt(n_i * n_j) * both / (both + shrinkage), where n counts the sessions with an item and
    `both` those with the two of them. An item is its own neighbor by the sessions that have it twice: what is never
    repeated is not recommended again. `decay` is the weight of a history event relative to the one after it.

    Sessions are those of the log, or whole users where it has no sessions. What is not reached is ranked by
    popularity.
    """

    name = "item_knn"

    def __init__(self, k: int = 200, shrinkage: float = 10.0, decay: float = 0.3) -> None:
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        if shrinkage < 0:
            raise ValueError(f"shrinkage must be >= 0, got {shrinkage}")
        if not 0 < decay <= 1:
            raise ValueError(f"decay must be above 0 and at most 1, got {decay}")
        self.k, self.shrinkage, self.decay = k, shrinkage, decay
        self._events: Events | None = None
        self._count = np.zeros(0)
        self._start = np.zeros(1, np.int64)  # [N + 1] into the next two
        self._neighbor = np.zeros(0, np.int32)  # [P]
        self._similarity = np.zeros(0, np.float32)  # [P]

    def fit(self, events: Events, train: Ints) -> None:
        self._events = events
        items = len(events.items)
        self._count = np.bincount(events.item[train], minlength=items).astype(np.float64)
        key, times = np.unique(events.session[train] * items + events.item[train], return_counts=True)  # [R]
        session, item = key // items, key % items
        by_session = _bounds(session, len(events.sessions))
        by_item = np.argsort(item, kind="stable")
        of_item = _bounds(item[by_item], items)
        in_sessions = np.diff(of_item)  # [N]
        twice = np.bincount(item[times > 1], minlength=items)  # [N]

        neighbors, similarities, kept = [], [], np.zeros(items, np.int64)
        work = np.bincount(item, np.diff(by_session)[session], minlength=items).astype(np.int64)  # [N] pairs to count
        for first, last in _blocks(work):
            # Step 1. Count the sessions that items [first, last) share with each other one.
            pair = by_item[of_item[first] : of_item[last]]
            begin, end = by_session[session[pair]], by_session[session[pair] + 1]
            place = np.repeat(item[pair] - first, end - begin) * items + item[spans(begin, end)]
            place, both = _counts(place, (last - first) * items)
            row, column = place // items, place % items
            both = np.where(row + first == column, twice[column], both)
            row, column, both = row[both > 0], column[both > 0], both[both > 0]
            # Step 2. Keep the nearest of each.
            cosine = both / np.sqrt(in_sessions[row + first] * in_sessions[column])
            similarity = cosine * both / (both + self.shrinkage)
            order = np.lexsort((column, -similarity, row))
            rank = np.arange(len(row)) - np.searchsorted(row, row)
            order = order[rank < self.k]
            neighbors.append(column[order].astype(np.int32))
            similarities.append(similarity[order].astype(np.float32))
            kept[first:last] = np.bincount(row[order], minlength=last - first)
        self._start = np.concatenate([[0], np.cumsum(kept)])
        self._neighbor = np.concatenate([*neighbors, np.zeros(0, np.int32)])
        self._similarity = np.concatenate([*similarities, np.zeros(0, np.float32)])

    def observe(self, positions: Ints) -> None:
        """Changes nothing: similarities are learned once, as in the shops that run this."""

    def score(self, questions: Questions) -> NDArray[np.float32]:
        assert self._events is not None, "fit comes first"
        items = len(self._events.items)
        scores = np.empty((len(questions), items), np.float32)
        for at in range(len(questions)):
            history = self._events.item[questions.history(at)]  # [L]
            weight = self.decay ** np.arange(len(history) - 1, -1, -1.0)
            begin, end = self._start[history], self._start[history + 1]
            place = spans(begin, end)
            weight = np.repeat(weight, end - begin) * self._similarity[place]
            scores[at] = np.bincount(self._neighbor[place], weight, minlength=items)
        rank_rest(scores, self._count)
        return scores


def _blocks(work: Ints) -> list[tuple[int, int]]:
    """Ranges of items whose pairs fit in memory; an item with more than that is alone."""
    block = np.cumsum(work) // _BLOCK
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(work)]
    return [(first, last) for first, last in pairwise(edges) if first < last]


def _counts(place: Ints, size: int) -> tuple[Ints, Ints]:
    """The distinct places below `size`, rising, and how often each is there."""
    if size > _SPARSE * len(place):
        return np.unique(place, return_counts=True)
    count = np.bincount(place, minlength=size)
    found = np.flatnonzero(count)
    return found, count[found]


def _bounds(sorted_numbers: Ints, count: int) -> Ints:
    """[count + 1] where each number from 0 begins in a sorted array, and its end."""
    return np.searchsorted(sorted_numbers, np.arange(count + 1))
