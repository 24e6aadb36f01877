"""The ways by which a list can be made without a model, by name: each takes the same and gives the same.

Shapes: B queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.config import RankingConfig
from engine.ranking.asked import Asked
from engine.ranking.covisitation import by_covisitation
from engine.ranking.frequency import by_frequency
from engine.ranking.moment import Moment
from engine.ranking.popular import by_popularity
from engine.ranking.scored import Scored

Scorer = Callable[[Asked, Moment, RankingConfig], list[Scored]]  # B queries -> a list for each

WITHOUT_MODEL = "covisitation"  # orders lists until a model serves

SCORERS: Mapping[str, Scorer] = {
    "covisitation": by_covisitation, "frequency": by_frequency, "popularity": by_popularity
}  # fmt: skip
