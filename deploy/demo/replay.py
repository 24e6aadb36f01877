"""Old purchases as live ones: several tills at work at once, at a steady pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deploy.demo.data import Purchases

_MAX_LATE_S = 0.5


@dataclass
class Basket:
    """One basket: rows start..end of the purchases, those before `next` rung up already."""

    household: int
    start: int
    end: int
    next: int

    @property
    def left(self) -> int:
        return self.end - self.next


@dataclass(frozen=True)
class Sale:
    """One purchase rung up.

    Attributes:
        row: of the purchases.
        closes: it is the last one of its basket.
    """

    row: int
    basket: Basket
    closes: bool


class Tills:
    """Serves baskets in time order at `tills` checkouts, one purchase of each in turn. Iterates over the sales.

    A free till takes the first basket in line whose household isn't at another one: nobody pays twice at once.
    """

    def __init__(self, purchases: Purchases, tills: int) -> None:
        self._line = _baskets(purchases)
        self._passed: deque[Basket] = deque()  # went to the head of the line while their household was at a till
        self._busy: set[int] = set()
        self._turn = 0
        self.open: list[Basket] = []  # what is on the tills now
        while len(self.open) < tills and (basket := self._next_basket()):
            self.open.append(basket)

    def __iter__(self) -> Iterator[Sale]:
        return self

    def __next__(self) -> Sale:
        if not self.open:
            raise StopIteration
        self._turn %= len(self.open)
        basket = self.open[self._turn]
        row = basket.next
        basket.next += 1
        sale = Sale(row, basket, closes=basket.left == 0)
        if not sale.closes:
            self._turn += 1
            return sale
        self._busy.discard(basket.household)
        following = self._next_basket()
        if following:
            self.open[self._turn] = following
            self._turn += 1
        else:
            del self.open[self._turn]
        return sale

    def _next_basket(self) -> Basket | None:
        for place, basket in enumerate(self._passed):
            if basket.household not in self._busy:
                del self._passed[place]
                self._busy.add(basket.household)
                return basket
        for basket in self._line:
            if basket.household not in self._busy:
                self._busy.add(basket.household)
                return basket
            self._passed.append(basket)
        return None


def _baskets(purchases: Purchases) -> Iterator[Basket]:
    starts = np.flatnonzero(np.diff(purchases.basket, prepend=purchases.basket[:1] - 1))
    ends = np.append(starts[1:], len(purchases))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield Basket(int(purchases.household[start]), start, end, start)


class Pace:
    """A clock that gives each event its moment. Lost time is not made up for by a flood."""

    def __init__(self, rate: float, now: float) -> None:
        self._step_s = 1.0 / rate
        self._due = now

    def delay(self, now: float) -> float:
        """Seconds to wait before the next event, which this call takes; 0 or less: it is due."""
        if now - self._due > _MAX_LATE_S:
            self._due = now
        delay = self._due - now
        self._due += self._step_s
        return delay


def first_households(purchases: Purchases, limit: int) -> list[int]:
    """The first `limit` different households, in order of appearance."""
    _, first = np.unique(purchases.household, return_index=True)
    return [int(household) for household in purchases.household[np.sort(first)[:limit]]]
