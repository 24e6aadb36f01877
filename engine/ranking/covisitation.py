"""Lists of what else those had who lately had what the user had, and of what is popular.

Shapes: B queries of known users, C candidates of each.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.features.candidates import ENTITY_BIT, FRIEND_BIT
from engine.features.votes import COMMON_ITEMS, count_votes
from engine.ranking.asked import Asked
from engine.ranking.candidates import asks_of
from engine.ranking.list_kernels import propose_rows
from engine.ranking.moment import Moment
from engine.ranking.popular import by_popularity
from engine.ranking.query import Origin
from engine.ranking.scored import Said, Scored, joined

_CROWD = 1.0


def by_covisitation(asked: Asked, moment: Moment, config: RankingConfig) -> list[Scored]:
    """The lists of users; an unknown one, and one of whom nothing follows, gets that of popularity."""
    made = by_popularity(asked, moment, config)
    known = np.flatnonzero(asked.users >= 0).tolist()
    if known:
        some = asked.select(known) if len(known) < len(asked) else asked
        for at, said in zip(known, _said(some, moment, config), strict=True):
            made[at] = joined(said, made[at], asked.queries[at], Origin.COVISITATION, moment, config.popular_candidates)
    return made


def _said(asked: Asked, moment: Moment, config: RankingConfig) -> list[Said]:
    """What co-visitation, friends and entities say of the neighbors of what each user touched, and of popular items."""
    nothing, popular = np.zeros((len(asked), 0), np.int64), np.full(len(asked), config.popular_candidates)
    asks = asks_of(asked, popular, moment.clock_ms)
    listable, voters, _ = propose_rows(nothing, asks, moment.live(), config.neighbor_sources)
    votes: NDArray[np.float64] = count_votes(voters, listable.row)[..., COMMON_ITEMS].astype(np.float64)
    proposed = (listable.source & (FRIEND_BIT | ENTITY_BIT)) > 0
    score = votes + proposed / np.maximum(proposed.sum(axis=1, keepdims=True), 1)
    hidden = [listable.hidden[slice(*span)] for span in pairwise(listable.first.tolist())]
    return [
        Said(listable.row[b, :n], listable.source[b, :n], score[b, :n], _CROWD, hidden[b])
        for b, n in enumerate(listable.size.tolist())
    ]
