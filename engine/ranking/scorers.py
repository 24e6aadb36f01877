"""The ways by which a list can be made without a model, by name: each takes the same and gives the same.

Shapes: B queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine.config import RankingConfig
from engine.ranking.covisitation import by_covisitation
from engine.ranking.popular import by_popularity
from engine.ranking.query import Query, Scored
from engine.state.state import State

# Queries [B], their users' rows (-1 where one is unknown), the state, settings, and the time that availability is
# judged by -> a list for each.
Scorer = Callable[[Sequence[Query], Sequence[int], State, RankingConfig, int], list[Scored]]

WITHOUT_MODEL = "covisitation"  # orders lists until a model serves


def _popularity(
    queries: Sequence[Query], users: Sequence[int], state: State, config: RankingConfig, now_ms: int
) -> list[Scored]:
    return [by_popularity(query, user, state, now_ms) for query, user in zip(queries, users, strict=True)]


SCORERS: Mapping[str, Scorer] = {"covisitation": by_covisitation, "popularity": _popularity}
