"""The order of lists before the first model: what lately followed the items that a user touched, then what is popular.

Shapes: B queries of known users, C candidates of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.model.candidates import ENTITY_BIT, FRIEND_BIT, gather_candidates
from engine.model.votes import FOLLOWING_BY_RECENCY, SOURCES, count_votes, gather_voters
from engine.ranking.candidates import related_items
from engine.ranking.filters import allowed
from engine.ranking.page import Page, pages
from engine.ranking.popular import by_popularity
from engine.ranking.query import Basis, Origin, Query, Scored
from engine.state.ring import Neighbors
from engine.state.state import State

# Where the bands of scores begin: items without a vote that friends or entities propose, and the popular rest. A share
# of popularity is at most 1, so that no item of a band comes before one of the band above.
_RELATED, _POPULAR = -1.0, -2.0


class _Weighed(NamedTuple):
    """The candidates of B queries.

    Attributes:
        row: [B, C] rows, -1 behind the last.
        score: [B, C].
        source: [B, C] bits of the sources that proposed each.
        weighed: [B, C] whether co-visitation, a friend or an entity has a say about it: others come by popularity.
        hidden: of each user, rows that friends or entities would propose if they could be shown.
    """

    row: NDArray[np.int64]
    score: NDArray[np.float64]
    source: NDArray[np.int64]
    weighed: NDArray[np.bool_]
    hidden: list[NDArray[np.int64]]


@torch.inference_mode()
def by_covisitation(
    queries: Sequence[Query], users: Sequence[int], state: State, config: RankingConfig, now_ms: int
) -> list[Scored]:
    """The lists of users; that of an unknown one, and one that nothing is known for, is the list of popularity.

    Args:
        users: [B] rows, -1 where one is unknown.
    """
    known = [at for at, user in enumerate(users) if user >= 0]
    made: list[Scored | None] = [None] * len(queries)
    if known:
        asked, rows = [queries[at] for at in known], [users[at] for at in known]
        history = state.histories(rows)
        found = _weigh(asked, rows, history, state, config)
        may = allowed(asked, found.row, state, history.row.numpy(), now_ms) & found.weighed
        listed = pages(found.row, found.score, found.source, may, [query.k for query in asked], state)
        for b, at in enumerate(known):
            weighed = np.concatenate([found.row[b, found.weighed[b]], found.hidden[b]])
            made[at] = _filled(queries[at], users[at], listed[b], weighed, state, now_ms)
    return [
        by_popularity(queries[at], users[at], state, now_ms) if scored is None else scored
        for at, scored in enumerate(made)
    ]


def _weigh(
    queries: Sequence[Query], users: Sequence[int], history: Neighbors, state: State, config: RankingConfig
) -> _Weighed:
    """Scores the neighbors of what each user touched, and what friends and entities propose."""
    voters = gather_voters(state.graph, history, torch.tensor(users))
    nothing = torch.zeros((len(queries), 0), dtype=torch.int64)
    related, hidden = related_items(queries, history, state, config)
    read = voters.following if config.neighbor_sources <= SOURCES else None
    found = gather_candidates(
        state.graph, history, nothing, nothing[0], config.neighbor_sources, related, read
    )  # fmt: skip
    row, source = found.item.numpy(), found.source.numpy()
    votes = count_votes(voters, found.item)[..., FOLLOWING_BY_RECENCY].double().numpy()
    proposed = (source & (FRIEND_BIT | ENTITY_BIT)) > 0
    share = state.popularity.share(np.maximum(row, 0).reshape(-1)).reshape(row.shape)
    score = np.where(votes > 0, votes, _RELATED + share)
    return _Weighed(row, score, source, (row >= 0) & ((votes > 0) | proposed), hidden)


def _filled(query: Query, user: int, page: Page, weighed: NDArray[np.int64], state: State, now_ms: int) -> Scored:
    """A list, with popular items behind the others as far as it is short, and what it was made from.

    Args:
        weighed: rows of all candidates, those that may not be listed included.
    """
    items, rows, floor = page.items, page.rows, np.inf
    if len(rows) < query.k:
        popular = by_popularity(query, user, state, now_ms)
        listed = {item.item_id for item in items}
        more = [
            (item._replace(score=_POPULAR + item.score) if listed else item, row)
            for item, row in zip(popular.items, popular.basis.rows.tolist(), strict=True)
            if item.item_id not in listed
        ][: query.k - len(rows)]
        items += tuple(item for item, _ in more)
        rows = np.concatenate([rows, np.array([row for _, row in more], np.int64)])
        floor = float(state.popularity.score[rows[-1]]) if len(rows) == query.k else -np.inf
    # Any change of a candidate that is not listed may bring it into the list; no cosine lies between these margins.
    rest = np.setdiff1d(weighed, rows)
    low = np.concatenate([np.full(len(rows), np.nan, np.float32), np.full(len(rest), np.inf, np.float32)])
    basis = Basis(
        query,
        0,
        np.concatenate([rows, rest]).astype(np.int32),
        low,
        np.full(len(low), -np.inf, np.float32),
        None,
        floor,
        state.popularity_scale,
        int(rows[-1]) if len(rows) else -1,
        0,
    )
    return Scored(items, basis, Origin.COVISITATION if len(page.rows) else Origin.POPULARITY)
