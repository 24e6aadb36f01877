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
from engine.inference.dense import cosines
from engine.model.candidates import Candidates, gather_candidates
from engine.model.votes import SOURCES
from engine.ranking.backfill import backfill
from engine.ranking.filters import allowed
from engine.ranking.query import Query
from engine.state.ring import Neighbors
from engine.state.state import State

_NO_ROWS = np.zeros(0, np.int64)


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
    """Candidates of B users.

    Attributes:
        floor: [B] the score that an item needs to be found by the index; -inf: any is found.
        allowed: [B, C] the candidates that may be listed.
        hidden: of each user, distinct rows that would be candidates if they could be shown, as far as neither the index
            nor popularity tell it.
    """

    candidates: Candidates
    floor: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    hidden: list[NDArray[np.int64]]


def propose(
    queries: Sequence[Query],
    history: Neighbors,
    encoded: Tensor,
    state: State,
    generation: Generation,
    config: RankingConfig,
    following: Tensor,
    now_ms: int,
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
            members = members[state.availability.at(members, now_ms)]  # As in the index: others take no place.
            found[at], floor[at] = _within(members, vectors[at], generation, k)
    popular = torch.from_numpy(state.popularity.top(max(breadth.popular for breadth in breadths)))
    related, hidden = related_items(queries, history, state, config)
    read = following if config.neighbor_sources <= SOURCES else None

    def gather(related: Sequence[Tensor]) -> tuple[Candidates, NDArray[np.bool_]]:
        index, sources = torch.from_numpy(found), config.neighbor_sources
        candidates = gather_candidates(state.graph, history, index, popular, sources, related, read)
        return candidates, allowed(queries, candidates.item.numpy(), state, history.row.numpy(), now_ms)

    candidates, may = gather(related)
    # Where the index has given all that it has, there are no others, unless some have become available right now.
    all_given = np.isneginf(floor) & state.availability.settled(now_ms)
    lacking = np.array([query.k for query in queries]) - may.sum(axis=1)
    short = (lacking > 0) & ~all_given
    if short.any():
        rows, past = candidates.item.numpy(), history.row.numpy()
        rest = [
            backfill(query, state, past[b], now_ms, rows[b], lacking[b] if short[b] else 0)
            for b, query in enumerate(queries)
        ]
        nobody = torch.zeros((len(queries), 0), dtype=torch.int64)
        candidates, may = gather((*(related or (nobody, nobody)), _padded(rest)))
    return Proposed(candidates, floor, may, hidden)


def _doubled(least: int, needed: int) -> int:
    """`least`, doubled as often as it takes to reach `needed`."""
    while least < needed:
        least *= 2
    return least


def related_items(
    queries: Sequence[Query], history: Neighbors, state: State, config: RankingConfig
) -> tuple[tuple[Tensor, ...], list[NDArray[np.int64]]]:
    """[B, n] what friends had last, and [B, n] what shares an entity with the user's last items; and the hidden.

    Where nobody has relations there is neither.
    """
    if not state.relations:
        return (), [_NO_ROWS] * len(queries)
    last = history.row[:, max(0, history.row.shape[1] - config.neighbor_sources) :]
    friends = [_of_friends(query.subject, state, config.friend_candidates) for query in queries]
    entities = [_of_entities(rows, state, config.entity_candidates) for rows in last]
    hidden = [
        np.union1d(of_friends.hidden, of_entities.hidden)
        for of_friends, of_entities in zip(friends, entities, strict=True)
    ]
    return (_padded([one.rows for one in friends]), _padded([one.rows for one in entities])), hidden


class _Cut(NamedTuple):
    """The first items that may be shown, and those before the last of them that may not."""

    rows: NDArray[np.int64]
    hidden: NDArray[np.int64]


_NOTHING = _Cut(_NO_ROWS, _NO_ROWS)


def _cut(rows: NDArray[np.int64], n: int, state: State) -> _Cut:
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


def _newest(histories: Neighbors) -> NDArray[np.int64]:
    """The items of several histories, each once: the newest of each first."""
    rows = histories.row.numpy()[:, ::-1].T.reshape(-1)
    return _distinct(rows[rows >= 0])


def _of_entities(last: Tensor, state: State, n: int) -> _Cut:
    last = last[last >= 0].unique()
    return _cut(state.relations.items_like(last).numpy(), n, state) if n and len(last) else _NOTHING


def _distinct(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each once, in order of appearance."""
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]


def _padded(lists: Sequence[NDArray[np.int64]]) -> Tensor:
    """[B, longest] of B lists, -1 behind the end of each."""
    return pad_sequence([torch.from_numpy(one) for one in lists], batch_first=True, padding_value=-1)


def _within(
    rows: NDArray[np.int64], vector: NDArray[np.float32], generation: Generation, k: int
) -> tuple[NDArray[np.int64], float]:
    """[k] the best of `rows` by exact search, -1 where there are fewer, and the score of the last, then -inf.

    An index can't see through a narrow filter.
    """
    score = cosines(generation.embedder.items.numpy(), rows[None], vector[None])[0]
    best = np.argsort(-score, kind="stable")[:k]
    floor = float(score[best[-1]]) if len(best) == k else -np.inf
    return np.concatenate([rows[best], np.full(k - len(best), -1, dtype=np.int64)]), floor
