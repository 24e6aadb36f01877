"""Candidates for a batch of users: the index's answer to the session, joined with the live sources.

Shapes: B users, k index hits of each, d width, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from engine.config import RankingConfig
from engine.generation import Generation
from engine.model.candidates import Candidates, gather_candidates
from engine.model.votes import SOURCES
from engine.ranking.query import Query
from engine.state.ring import Neighbors
from engine.state.state import State

_NONE = torch.zeros(0, dtype=torch.int64)


class Breadth(NamedTuple):
    """How many candidates the index and popularity propose for a query."""

    hits: int
    popular: int


def breadth_of(query: Query, history: int, config: RankingConfig) -> Breadth:
    """A query's own breadth, whatever it is answered together with; it doubles, so that few queries differ by it.

    Args:
        history: events kept of a user at most.
    """
    # Whatever a filter takes away, k must still be there: history and exclusions are the largest takers.
    needed = query.k + len(query.exclude_item_ids) + (history if query.exclude_history else 0)
    return Breadth(_doubled(config.index_candidates, needed), _doubled(config.popular_candidates, needed))


class Proposed(NamedTuple):
    """Candidates of B users, and the score [B] that an item needs to be found by the index; -inf: any is found."""

    candidates: Candidates
    floor: NDArray[np.float32]


def propose(
    queries: Sequence[Query],
    history: Neighbors,
    encoded: Tensor,
    state: State,
    generation: Generation,
    config: RankingConfig,
    following: Tensor,
) -> Proposed:
    """Gathers C candidates for each of B known users, given their histories and encoded sessions [B, d].

    Args:
        queries: of one breadth, or their lists depend on which others they were made with.
        following: [B, SOURCES, n] what lately followed each user's latest items.
    """
    breadths = [breadth_of(query, state.graph.user_items.size, config) for query in queries]
    k = max(breadth.hits for breadth in breadths)
    vectors = encoded.numpy()
    hits = generation.index.search(vectors, k)
    found, floor = hits.row, hits.score[:, -1].copy()
    for at, query in enumerate(queries):
        if query.categories:
            members = state.catalog.members(query.categories)
            members = members[~state.catalog.deleted(members)]  # As in the index: one that is gone takes no place.
            found[at], floor[at] = _within(members, vectors[at], generation, k)
    popular = torch.from_numpy(state.popularity.top(max(breadth.popular for breadth in breadths)))
    related = _related(queries, history, state, config) if state.relations else ()
    read = following if config.neighbor_sources <= SOURCES else None
    candidates = gather_candidates(
        state.graph, history, torch.from_numpy(found), popular, config.neighbor_sources, related, read
    )  # fmt: skip
    return Proposed(candidates, floor)


def _doubled(least: int, needed: int) -> int:
    """`least`, doubled as often as it takes to reach `needed`."""
    while least < needed:
        least *= 2
    return least


def _related(
    queries: Sequence[Query], history: Neighbors, state: State, config: RankingConfig
) -> tuple[Tensor, Tensor]:
    """[B, n] what friends had last, and [B, n] what shares an entity with the user's last items."""
    last = history.row[:, max(0, history.row.shape[1] - config.neighbor_sources) :]
    return (
        _padded([_of_friends(query.subject, state, config.friend_candidates) for query in queries]),
        _padded([_of_entities(rows, state, config.entity_candidates) for rows in last]),
    )


def _of_friends(subject: str, state: State, n: int) -> Tensor:
    """The newest item of each friend, the closest friend first, then the second newest of each, and so on."""
    friends = state.relations.friends(subject) if n else _NONE
    newest_first = state.graph.user_items.latest(friends, n).row.flip(1)
    rows = newest_first.T.flatten()
    return _distinct(rows[rows >= 0])[:n]


def _of_entities(last: Tensor, state: State, n: int) -> Tensor:
    last = last[last >= 0].unique()
    return state.relations.items_like(last, n) if n and len(last) else _NONE


def _distinct(rows: Tensor) -> Tensor:
    """Each once, in order of appearance."""
    _, first = np.unique(rows.numpy(), return_index=True)
    return rows[torch.from_numpy(np.sort(first))]


def _padded(lists: Sequence[Tensor]) -> Tensor:
    """[B, longest] of B lists, -1 behind the end of each."""
    return pad_sequence(list(lists), batch_first=True, padding_value=-1)


def _within(
    rows: NDArray[np.int64], vector: NDArray[np.float32], generation: Generation, k: int
) -> tuple[NDArray[np.int64], float]:
    """[k] the best of `rows` by exact search, -1 where there are fewer, and the score of the last, then -inf.

    An index can't see through a narrow filter.
    """
    score = generation.embedder.items.numpy()[rows] @ vector
    best = np.argsort(-score, kind="stable")[:k]
    floor = float(score[best[-1]]) if len(best) == k else -np.inf
    return np.concatenate([rows[best], np.full(k - len(best), -1, dtype=np.int64)]), floor
