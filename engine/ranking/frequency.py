"""Lists of what the user had most often, lately more than long ago, and of what is popular.

Shapes: B queries of known users, K remembered events.
"""

from __future__ import annotations

import numpy as np

from engine.config import RankingConfig
from engine.features.candidates import HISTORY_BIT
from engine.features.table import CROWD
from engine.ranking.asked import Asked
from engine.ranking.moment import Moment
from engine.ranking.popular import by_popularity
from engine.ranking.query import Origin
from engine.ranking.scored import Said, Scored, joined

_HALF_LIFE_MS = 60 * 86_400_000.0


def by_frequency(asked: Asked, moment: Moment, config: RankingConfig) -> list[Scored]:
    """The lists of users; an unknown one gets that of popularity."""
    made = by_popularity(asked, moment, config)
    for b in np.flatnonzero(asked.users >= 0).tolist():
        made[b] = joined(_said(asked, b, moment), made[b], asked.queries[b], Origin.FREQUENCY, moment, 0)
    return made


def _said(asked: Asked, b: int, moment: Moment) -> Said:
    """How often the user had each item, every event halved in 60 days before the user's last."""
    history, time_ms = asked.history.row[b], asked.history.time_ms[b]
    there = history >= 0
    age_ms = np.maximum(time_ms[there].max(initial=0) - time_ms[there], 0)
    rows, place = np.unique(history[there], return_inverse=True)
    count = np.bincount(place, 2.0 ** (-age_ms / _HALF_LIFE_MS), minlength=len(rows)).astype(np.float64)
    may = moment.may(rows)
    may[may] &= asked.lets(b, rows[may])
    source = np.full(int(may.sum()), HISTORY_BIT)
    return Said(rows[may], source, count[may], CROWD, rows[~may])
