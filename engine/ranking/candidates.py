"""Candidates for a batch of users: the index's answer to the session, joined with the live sources.

Shapes: B users, k index hits of each, d width, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def propose(
    queries: Sequence[Query],
    history: Neighbors,
    encoded: Tensor,
    state: State,
    generation: Generation,
    config: RankingConfig,
    following: Tensor,
) -> Candidates:
    """Gathers C candidates for each of B known users, given their histories and encoded sessions [B, d].

    Args:
        following: [B, SOURCES, n] what lately followed each user's latest items.
    """
    # Whatever a filter takes away, k must still be there: history and exclusions are the largest takers.
    longest = max(query.k + len(query.exclude_item_ids) for query in queries)
    if any(query.exclude_history for query in queries):
        longest += state.graph.user_items.size
    k = max(config.index_candidates, longest)
    vectors = encoded.numpy()
    found = generation.index.search(vectors, k).row
    for at, query in enumerate(queries):
        if query.categories:
            found[at] = _within(state.catalog.members(query.categories), vectors[at], generation, k)
    popular = torch.from_numpy(state.popularity.top(max(config.popular_candidates, longest)))
    related = _related(queries, history, state, config) if state.relations else ()
    read = following if config.neighbor_sources <= SOURCES else None
    return gather_candidates(
        state.graph, history, torch.from_numpy(found), popular, config.neighbor_sources, related, read
    )  # fmt: skip


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


def _within(rows: NDArray[np.int64], vector: NDArray[np.float32], generation: Generation, k: int) -> NDArray[np.int64]:
    """[k] the best of `rows` by exact search, -1 where there are fewer: an index can't see through a narrow filter."""
    score = generation.embedder.items.numpy()[rows] @ vector
    best = rows[np.argsort(-score, kind="stable")[:k]]
    return np.concatenate([best, np.full(k - len(best), -1, dtype=np.int64)])
