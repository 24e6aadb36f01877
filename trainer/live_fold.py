"""Folds a log into the rings and into popularity as the engine's state does, without its ids and partitions.

Shapes: E events, N items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.features.live import Live, Popular, Rings
from engine.state.availability import Shown
from engine.state.catalog import ALWAYS
from engine.state.contributions import Contributions
from engine.state.graph import Graph
from engine.state.popularity import Popularity
from trainer.replay import EventLog, TrainingData

_AT_ONCE = 65_536  # events, so that what is made of each does not add up to gigabytes

Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]


class LiveFold:
    """What the state was when the log was read so far; a `Moment` of the lists.

    Which items may be shown goes by the time of the newest event, as it went when the events came.

    Args:
        data: its items, users and settings; its log is not read.
    """

    def __init__(self, data: TrainingData) -> None:
        state = data.state
        self.graph = Graph.empty(state.history, state.neighbors, data.users, data.items)
        self.popularity = Popularity(state.half_lives_s, state.popular, data.items)
        self.history = state.history
        self.items = data.items
        self.clock_ms = 0
        self.settled = True
        self._data = data
        self._shown = np.ones(data.items, np.bool_)
        self._always = np.full(data.items, ALWAYS.min), np.full(data.items, ALWAYS.max)
        self._counts = self.popularity.counts()
        self._contributions = Contributions(
            state.user_item_weight, state.repeated_pairs, state.half_lives_s, data.kind_weight
        )
        self._folded = 0
        self._pass_time()

    def may(self, rows: Longs) -> Flags:
        """See `Moment`."""
        return self._shown[rows]

    def live(self) -> Live:
        """See `Moment`."""
        popularity, shown = self.popularity, Shown(~self._shown, *self._always, self._shown, 0, False)
        popular = Popular(popularity.top(), popularity.score, popularity.total, self._counts)
        return Live(Rings.of(self.graph), shown, popular, self._data.group)

    def fold(self, log: EventLog) -> None:
        """Takes in events, oldest first."""
        for first in range(0, len(log), _AT_ONCE):
            self._fold_part(log.slice(first, first + _AT_ONCE))
        if len(log):
            self._pass_time()

    def _fold_part(self, log: EventLog) -> None:
        user, item, time_ms = log.user.numpy(), log.item.numpy(), log.time_ms.numpy()
        offset = np.arange(self._folded, self._folded + len(log))
        # The weights come first: they are read from the rings as they are before these events.
        weight = self._contributions.count(
            self.graph, user, item, time_ms, time_ms, log.kind.numpy().astype(np.int8), offset, self.clock_ms
        )
        insert(self.graph, log)
        self.popularity.fold(item, time_ms, weight)
        self.clock_ms = max(self.clock_ms, int(time_ms.max()))
        self._folded += len(log)

    def _pass_time(self) -> None:
        """Hides what may not be shown now, and shows the rest."""
        shown = self._data.may_be_shown(self.clock_ms)
        changed = np.flatnonzero(shown != self._shown)
        self._shown = shown
        self.popularity.hide(changed, ~shown[changed])


def insert(graph: Graph, log: EventLog) -> None:
    """Folds events into the rings as `State` does."""
    graph.insert(log.user, log.item, log.previous, log.time_ms, log.kind, log.value, log.session)
