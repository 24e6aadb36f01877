"""The order of lists before the first model: what else those had who lately had what the user had, and what is popular.

Shapes: B queries of known users, C candidates of each.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.features.candidates import ENTITY_BIT, FRIEND_BIT
from engine.features.votes import COMMON_ITEMS, count_votes, gather_voters
from engine.ranking.asked import Asked
from engine.ranking.candidates import Proposed, gather
from engine.ranking.moment import Moment
from engine.ranking.page import Page
from engine.ranking.popular import by_popularity
from engine.ranking.query import Origin
from engine.ranking.scored import Scored

Doubles = NDArray[np.float64]


@torch.inference_mode()
def by_covisitation(asked: Asked, moment: Moment, config: RankingConfig) -> list[Scored]:
    """The lists of users; an unknown one, and one of whom nothing follows, gets that of popularity."""
    made = by_popularity(asked, moment, config)
    known = np.flatnonzero(asked.users >= 0).tolist()
    if known:
        some = asked.select(known) if len(known) < len(asked) else asked
        found, said, score = _weigh(some, moment, config)
        for b, at in enumerate(known):
            made[at] = _merged(some, b, found, said[b], score[b], made[at], moment, config)
    return made


def _weigh(asked: Asked, moment: Moment, config: RankingConfig) -> tuple[Proposed, Doubles, Doubles]:
    """Candidates, [B, C] what co-visitation, friends and entities say of each, and [B, C] that and the popularity.

    Candidates are the neighbors of what each user touched, what friends and entities propose, and popular items.
    """
    voters = gather_voters(moment.graph, asked.history, torch.from_numpy(asked.users))
    nothing = np.zeros((len(asked), 0), np.int64)
    found = gather(asked, nothing, [config.popular_candidates] * len(asked), voters, moment, config)
    votes: Doubles = count_votes(voters, torch.from_numpy(found.row))[..., COMMON_ITEMS].double().numpy()
    proposed = (found.source & (FRIEND_BIT | ENTITY_BIT)) > 0
    said = votes + proposed / np.maximum(proposed.sum(axis=1, keepdims=True), 1)
    share = moment.popularity.share(np.maximum(found.row, 0).reshape(-1)).reshape(found.row.shape)
    return found, said, said + share


def _merged(
    asked: Asked, b: int, found: Proposed, said: Doubles, score: Doubles, popular: Scored, moment: Moment,
    config: RankingConfig,
) -> Scored:  # fmt: skip
    """The best of the candidates [C] of one query and of its popular list, which fills up where candidates are few."""
    k = asked.queries[b].k
    there = found.row[b] >= 0
    weighed = found.row[b, there]
    rest = ~np.isin(popular.page.row, weighed)
    rows = np.concatenate([weighed, popular.page.row[rest]])
    score = np.concatenate([score[there], popular.page.score[rest]])
    source = np.concatenate([found.source[b, there], popular.page.source[rest]])
    said = np.concatenate([said[there], np.zeros(rest.sum())])
    best = np.lexsort((rows, -score))[:k]
    page = Page(rows[best], score[best], source[best])
    floor = _floor(page.score[-1], said[best[-1]], page.last, moment) if len(best) == k else -np.inf
    others = np.setdiff1d(np.concatenate([weighed, found.hidden[b].row]), page.row)
    origin = Origin.COVISITATION if said[best].any() else Origin.POPULARITY
    return Scored(page, origin, others, floor, config.popular_candidates)


def _floor(score: float, said: float, row: int, moment: Moment) -> float:
    """The decayed popularity with which an item that nothing else is said of comes before the last of a list."""
    popularity = moment.popularity.score
    return float(popularity[row] if said == 0 else score * popularity[: moment.items].sum())
