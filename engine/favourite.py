"""Which scorer makes the lists of known users as long as no model serves: the one that their newest events favour."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from engine.config import Config
from engine.contest import MIN_HITS, Contest, recent_users, scorer_makers
from engine.ranking.scorers import SCORERS, WITHOUT_MODEL
from engine.state.state import State

_log = logging.getLogger(__name__)

_EVERY_S = 600.0  # from the end of one contest to the next


class Favourite:
    """Asks the scorers now and then for what recent users did last; for the engine's thread.

    Attributes:
        name: of the scorer; co-visitation before anything was measured.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._contest: Contest | None = None
        self._next_s = clock()
        self.name = WITHOUT_MODEL

    def step(self, state: State) -> None:
        """Goes on by a few lists, where a contest is due."""
        if self._contest is None:
            if self._clock() < self._next_s:
                return
            users = recent_users(state.users(), state.graph, self._config.canary.users)
            self._contest = Contest(self._config.ranking, users, scorer_makers())
        if self._contest.step(state):
            self._settle(self._contest)
            self._contest, self._next_s = None, self._clock() + _EVERY_S

    def _settle(self, contest: Contest) -> None:
        best = max(SCORERS, key=contest.hits)
        if contest.hits(best) < MIN_HITS or not contest.is_behind(self.name, best):
            return
        _log.info(
            "without a model, lists are by %s instead of %s: of %d recent users it hit the newest event of %d, and"
            " that of %d", best, self.name, contest.tried, contest.hits(best), contest.hits(self.name),
        )  # fmt: skip
        self.name = best
