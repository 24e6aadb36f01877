"""Candidates from the relations of a user: what friends had lately, and what shares an entity with the last items.

Shapes: B users, K remembered events, n items proposed at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.ranking.ragged import padded
from engine.state.ring import History, Neighbors
from engine.state.state import State

Longs = NDArray[np.int64]

_NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Related:
    """What relations propose to B users; nothing where nobody has any.

    Attributes:
        proposed: [B, n] rows by way of friends, and [B, n] by way of entities, -1 where there are fewer.
        hidden: of each user, distinct rows that would be proposed if they could be shown.
    """

    proposed: tuple[Longs, ...] = ()
    hidden: Sequence[Longs] = ()

    def select(self, at: Sequence[int]) -> Related:
        """Some of the users."""
        if not self.proposed:
            return self
        return Related(tuple(one[list(at)] for one in self.proposed), [self.hidden[b] for b in at])


def related_items(subjects: Sequence[str], history: History, state: State, config: RankingConfig) -> Related:
    """Looks up the relations of users of whom `history` [B, K] is known."""
    if not state.relations:
        return Related()
    last = history.row[:, max(0, history.row.shape[1] - config.neighbor_sources) :]
    friends = [_of_friends(subject, state, config.friend_candidates) for subject in subjects]
    entities = [_of_entities(rows, state, config.entity_candidates) for rows in last]
    hidden = [
        np.union1d(of_friends.hidden, of_entities.hidden)
        for of_friends, of_entities in zip(friends, entities, strict=True)
    ]
    return Related((padded([one.rows for one in friends]), padded([one.rows for one in entities])), hidden)


class _Cut(NamedTuple):
    """The first items that may be shown, and those before the last of them that may not."""

    rows: Longs
    hidden: Longs


_NOTHING = _Cut(_NO_ROWS, _NO_ROWS)


def _cut(rows: Longs, n: int, state: State) -> _Cut:
    """The first n of distinct `rows` that may be shown."""
    may = state.availability.now(rows)
    end = int(np.searchsorted(may.cumsum(), n)) + 1
    rows, may = rows[:end], may[:end]
    return _Cut(rows[may], rows[~may])


def _of_friends(subject: str, state: State, n: int) -> _Cut:
    """The newest item of each friend, the closest friend first, then the second newest of each, and so on."""
    if n == 0:
        return _NOTHING
    friends, edges = state.relations.friends(subject), state.graph.user_items
    cut = _cut(_newest(edges.latest(friends, n)), n, state)
    if len(cut.rows) < n < edges.size and len(cut.hidden):
        cut = _cut(_newest(edges.latest(friends)), n, state)
    return cut


def _newest(histories: Neighbors) -> Longs:
    """The items of several histories, each once: the newest of each first."""
    rows = histories.row.numpy()[:, ::-1].T.reshape(-1)
    return _distinct(rows[rows >= 0])


def _of_entities(last: Longs, state: State, n: int) -> _Cut:
    last = np.unique(last[last >= 0])
    return _cut(state.relations.items_like(torch.from_numpy(last)).numpy(), n, state) if n and len(last) else _NOTHING


def _distinct(rows: Longs) -> Longs:
    """Each once, in order of appearance."""
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]
