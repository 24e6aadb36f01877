"""Calls that wait for their lists, those that cost as much as many others apart from the rest.

A list of a thousand items, or one that leaves a thousand out, costs as much as a dozen usual ones, and calls that are
made together cost as much as all of them. What waits in one piece and costs more than one usual call is wide, and its
weight says how many usual ones it costs. Wide ones get a part of each batch by weight, and what the others leave, so
that however many come, nobody else waits much longer for a list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from engine.config import RankingConfig
from engine.ranking.candidates import breadth_of
from engine.ranking.query import Query
from engine.waiting import Call

WIDE_PART = 4  # one place of so many in a batch is for wide calls, where as many others wait as fill it


def weight_of(query: Query, history: int, config: RankingConfig) -> int:
    """How many usual lists a query costs.

    Args:
        history: events kept of a user at most.
    """
    return breadth_of(query, history, config).hits // config.index_candidates


class CallQueue:
    """Not safe to use from several threads at once: its owner has the lock."""

    def __init__(self) -> None:
        self._usual: deque[Call] = deque()
        self._wide: deque[tuple[Sequence[Call], int]] = deque()
        self._wide_calls = 0
        self.wide_weight = 0
        self._credit = 0.0  # places that wide calls have been due and have not used, while some wait

    def __len__(self) -> int:
        return len(self._usual) + self._wide_calls

    @property
    def usual(self) -> int:
        """Calls that are not wide."""
        return len(self._usual)

    @property
    def weight(self) -> int:
        """Of all that wait."""
        return len(self._usual) + self.wide_weight

    def add(self, calls: Sequence[Call], weight: int) -> None:
        """Has calls wait behind the others of their kind; where they are several, they are taken together.

        Args:
            weight: of all of them, at least one for each.
        """
        if weight > 1:
            self._wide.append((calls, weight))
            self._wide_calls += len(calls)
            self.wide_weight += weight
        else:
            self._usual.extend(calls)

    def take(self, limit: int) -> tuple[list[Call], int]:
        """The next calls, up to `limit` by weight, and their weight; what is wider than its part waits its time."""
        taken: list[Call] = []
        used = 0
        self._credit += max(limit - len(self._usual), limit / WIDE_PART)
        while self._wide and self._wide[0][1] <= self._credit:
            calls, weight = self._wide.popleft()
            taken.extend(calls)
            self._wide_calls -= len(calls)
            self.wide_weight -= weight
            self._credit -= weight
            used += weight
        if not self._wide:
            self._credit = 0.0
        usual = [self._usual.popleft() for _ in range(min(max(0, limit - used), len(self._usual)))]
        return usual + taken, used + len(usual)
