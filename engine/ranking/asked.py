"""Queries with what is known of who asks, and with their filters by rows instead of ids.

Shapes: B queries, K remembered events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.ranking.query import Query
from engine.ranking.related import Related, related_items
from engine.state.ring import History, no_edges
from engine.state.state import State

Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]

_NO_ROWS = np.zeros(0, np.int64)


class Filter(NamedTuple):
    """What a query leaves out beside its user's history: `excluded` rows, and all but `members` where there are any."""

    excluded: Longs = _NO_ROWS
    members: Longs | None = None


@dataclass(frozen=True)
class Asked:
    """B queries at one moment.

    Attributes:
        users: [B] rows, -1 where one is unknown.
        history: [B, K] what each user had before, or is to be taken as having had; nothing of an unknown one.
        filters: of each query.
        related: what the users' relations propose; None where there are none.
        clock_ms: [B] event time at which each was asked, where that is in the past; None: that of the moment.
    """

    queries: Sequence[Query]
    users: Longs
    history: History
    filters: Sequence[Filter]
    related: Related = field(default=Related())
    clock_ms: Longs | None = None

    def __len__(self) -> int:
        return len(self.queries)

    @classmethod
    def of(cls, queries: Sequence[Query], state: State, config: RankingConfig) -> Asked:
        """Looks up who asks, and what they leave out."""
        users = state.find_users([query.subject for query in queries])
        known = [at for at, user in enumerate(users) if user >= 0]
        found = state.remembered([users[at] for at in known])
        history = found if len(known) == len(users) else no_edges(len(users), state.graph.user_items.size)
        if history is not found:
            history.put(known, found)
        related = related_items([query.subject for query in queries], history, state, config)
        return cls(queries, np.array(users, np.int64), history, [_filter(query, state) for query in queries], related)

    def select(self, at: Sequence[int]) -> Asked:
        """Some of the queries."""
        return Asked(
            [self.queries[b] for b in at], self.users[at], self.history.select(at),
            [self.filters[b] for b in at], self.related.select(at),
            None if self.clock_ms is None else self.clock_ms[list(at)],
        )  # fmt: skip

    def part(self, span: slice) -> Asked:
        """Some of the queries, one behind the other: views of what is here."""
        if span == slice(0, len(self)):
            return self
        return Asked(
            self.queries[span], self.users[span], self.history.select(span),
            self.filters[span], self.related.select(range(len(self))[span]),
            None if self.clock_ms is None else self.clock_ms[span],
        )  # fmt: skip

    def lets(self, b: int, rows: Longs) -> Flags:
        """[C] whether the filters of one query, and its exclusion of the history, let items `rows` [C] be listed."""
        query, filter_ = self.queries[b], self.filters[b]
        lets = np.ones(len(rows), np.bool_)
        if query.exclude_history:
            lets &= ~np.isin(rows, self.history.row[b])
        if len(filter_.excluded):
            lets &= ~np.isin(rows, filter_.excluded)
        if filter_.members is not None:
            lets &= np.isin(rows, filter_.members)
        return lets


def _filter(query: Query, state: State) -> Filter:
    excluded = state.items.find(query.exclude_item_ids).numpy() if query.exclude_item_ids else _NO_ROWS
    return Filter(excluded[excluded >= 0], state.catalog.members(query.categories) if query.categories else None)
