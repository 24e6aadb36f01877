"""Candidates for a batch of users: the index's answer to the session, joined with the live sources.

Shapes: B users, k index hits of each, d width, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import RankingConfig
from engine.generation import Generation
from engine.model.candidates import Candidates, gather_candidates
from engine.ranking.query import Query
from engine.state.ring import Neighbors
from engine.state.state import State


def propose(
    queries: Sequence[Query],
    history: Neighbors,
    encoded: Tensor,
    state: State,
    generation: Generation,
    config: RankingConfig,
) -> Candidates:
    """Gathers C candidates for each of B known users, given their histories and encoded sessions [B, d]."""
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
    return gather_candidates(state.graph, history, torch.from_numpy(found), popular, config.neighbor_sources)


def _within(rows: NDArray[np.int64], vector: NDArray[np.float32], generation: Generation, k: int) -> NDArray[np.int64]:
    """[k] the best of `rows` by exact search, -1 where there are fewer: an index can't see through a narrow filter."""
    score = generation.embedder.items.numpy()[rows] @ vector
    best = rows[np.argsort(-score, kind="stable")[:k]]
    return np.concatenate([best, np.full(k - len(best), -1, dtype=np.int64)])
