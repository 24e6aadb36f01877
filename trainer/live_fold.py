"""Folds a log into the rings and into popularity as the engine's state does, without its ids and partitions.

Shapes: E events, N items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.config import StateConfig
from engine.state.contributions import Contributions
from engine.state.graph import Graph
from engine.state.popularity import Popularity
from trainer.replay import EventLog

_AT_ONCE = 65_536  # events, so that what is made of each does not add up to gigabytes


class LiveFold:
    """The rings and the popularity of a log, read so far.

    Args:
        users, items: how many rows there are of each.
        kind_weight: of each kind of event, in popularity.

    Attributes:
        popularity: under each half-life of the state.
    """

    def __init__(
        self,
        state: StateConfig,
        users: int,
        items: int,
        kind_weight: NDArray[np.float64],
        *,
        history: int | None = None,
        neighbors: int | None = None,
    ) -> None:
        self.graph = Graph.empty(history or state.history, neighbors or state.neighbors, users, items)
        self.popularity: Sequence[Popularity] = [
            Popularity(half_life_s, state.popular, items) for half_life_s in state.half_lives_s
        ]
        self._contributions = Contributions(
            state.user_item_weight, state.repeated_pairs, state.half_lives_s, kind_weight
        )
        self._newest_ms = 0
        self._folded = 0

    def fold(self, log: EventLog) -> None:
        """Takes in events, oldest first."""
        for first in range(0, len(log), _AT_ONCE):
            self._fold_part(log.slice(first, first + _AT_ONCE))

    def _fold_part(self, log: EventLog) -> None:
        user, item, time_ms = log.user.numpy(), log.item.numpy(), log.time_ms.numpy()
        offset = np.arange(self._folded, self._folded + len(log))
        # The weights come first: they are read from the rings as they are before these events.
        weight = self._contributions.count(
            self.graph, user, item, time_ms, time_ms, log.kind.numpy().astype(np.int8), offset, self._newest_ms
        )
        insert(self.graph, log)
        for half_life, one in enumerate(self.popularity):
            one.fold(item, time_ms, weight[:, half_life])
        self._newest_ms = max(self._newest_ms, int(time_ms.max()))
        self._folded += len(log)


def insert(graph: Graph, log: EventLog) -> None:
    """Folds events into the rings as `State` does."""
    graph.insert(log.user, log.item, log.previous, log.time_ms, log.kind, log.value, log.session)
