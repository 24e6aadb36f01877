"""The order of lists before the first model: what else those had who lately had what the user had, and what is popular.

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
from engine.model.votes import COMMON_ITEMS, SOURCES, count_votes, gather_voters
from engine.ranking.candidates import related_items
from engine.ranking.filters import allowed
from engine.ranking.page import page_of
from engine.ranking.popular import by_popularity
from engine.ranking.query import Basis, Origin, Query, Scored
from engine.state.ring import Neighbors
from engine.state.state import State

Longs = NDArray[np.int64]
Doubles = NDArray[np.float64]


class _Weighed(NamedTuple):
    """The candidates of B queries.

    Attributes:
        row: [B, C] rows, -1 behind the last.
        said: [B, C] what co-visitation, friends and entities say of each: 0 where they say nothing.
        score: [B, C] the same and the share of popularity.
        source: [B, C] bits of the sources that proposed each.
        hidden: of each user, rows that friends or entities would propose if they could be shown.
    """

    row: Longs
    said: Doubles
    score: Doubles
    source: Longs
    hidden: list[Longs]

    def of(self, at: int) -> _Weighed:
        """The candidates [C] of one query, without the places behind the last."""
        n = int((self.row[at] >= 0).sum())
        return _Weighed(
            self.row[at, :n], self.said[at, :n], self.score[at, :n], self.source[at, :n], [self.hidden[at]]
        )  # fmt: skip


@torch.inference_mode()
def by_covisitation(
    queries: Sequence[Query], users: Sequence[int], state: State, config: RankingConfig, now_ms: int
) -> list[Scored]:
    """The lists of users; an unknown one, and one of whom nothing follows, gets that of popularity.

    Args:
        users: [B] rows, -1 where one is unknown.
    """
    made = [by_popularity(query, user, state, now_ms) for query, user in zip(queries, users, strict=True)]
    known = [at for at, user in enumerate(users) if user >= 0]
    if known:
        asked, rows = [queries[at] for at in known], [users[at] for at in known]
        history = state.histories(rows)
        weighed = _weigh(asked, rows, history, state, config)
        may = allowed(asked, weighed.row, state, history.row.numpy(), now_ms)
        for b, at in enumerate(known):
            made[at] = _merged(queries[at], weighed.of(b), may[b, weighed.row[b] >= 0], made[at], state, config)
    return made


def _weigh(
    queries: Sequence[Query], users: Sequence[int], history: Neighbors, state: State, config: RankingConfig
) -> _Weighed:
    """Scores the neighbors of what each user touched, what friends and entities propose, and popular items."""
    voters = gather_voters(state.graph, history, torch.tensor(users))
    popular = torch.from_numpy(state.popularity.top(config.popular_candidates).copy())
    nothing = torch.zeros((len(queries), 0), dtype=torch.int64)
    related, hidden = related_items(queries, history, state, config)
    read = voters.following if config.neighbor_sources <= SOURCES else None
    found = gather_candidates(state.graph, history, nothing, popular, config.neighbor_sources, related, read)
    row, source = found.item.numpy(), found.source.numpy()
    votes: Doubles = count_votes(voters, found.item)[..., COMMON_ITEMS].double().numpy()
    proposed = (source & (FRIEND_BIT | ENTITY_BIT)) > 0
    said = votes + proposed / np.maximum(proposed.sum(axis=1, keepdims=True), 1)
    share = state.popularity.share(np.maximum(row, 0).reshape(-1)).reshape(row.shape)
    return _Weighed(row, said, said + share, source, hidden)


def _merged(
    query: Query, weighed: _Weighed, may: NDArray[np.bool_], popular: Scored, state: State, config: RankingConfig
) -> Scored:
    """The best of the candidates [C] and of the popular list, which fills the list where the candidates are few.

    Args:
        may: [C] the candidates that may be listed.
    """
    rest = ~np.isin(popular.basis.rows, weighed.row)
    share = np.array([item.score for item in popular.items])
    bits = np.array([sum(1 << (source - 1) for source in item.sources) for item in popular.items], np.int64)
    rows = np.concatenate([weighed.row[may], popular.basis.rows[rest]])
    score = np.concatenate([weighed.score[may], share[rest]])
    source = np.concatenate([weighed.source[may], bits[rest]])
    said = np.concatenate([weighed.said[may], np.zeros(rest.sum())])
    best = np.lexsort((rows, -score))[: query.k]
    rows, score, source = rows[best], score[best], source[best]
    floor = _floor(score[-1], said[best[-1]], rows[-1], state) if len(rows) == query.k else -np.inf
    others = np.setdiff1d(np.concatenate([weighed.row, *weighed.hidden]), rows)
    # A candidate that is not listed can't enter the list as long as its categories and its availability stay.
    low = np.concatenate([np.full(len(rows), np.nan, np.float32), np.full(len(others), -np.inf, np.float32)])
    high = np.where(np.isnan(low), -np.inf, np.inf).astype(np.float32)
    basis = Basis(
        query, 0, np.concatenate([rows, others]).astype(np.int32), low, high, None, floor, state.popularity_scale,
        int(rows[-1]) if len(rows) else -1, config.popular_candidates,
    )  # fmt: skip
    origin = Origin.COVISITATION if said[best].any() else Origin.POPULARITY
    return Scored(page_of(rows, score, source, state).items, basis, origin)


def _floor(score: float, said: float, row: int, state: State) -> float:
    """The decayed popularity with which an item that nothing else is said of comes before the last of a list."""
    popularity = state.popularity.score
    return float(popularity[row] if said == 0 else score * popularity[: len(state.items)].sum())
