"""The one household that the view follows, from its first purchase to its last, then the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ousel import Origin, RecommendationList

from deploy.demo.data import Purchases
from deploy.demo.measure import Measurement
from deploy.demo.replay import Basket, Sale, Tills

_SHOWN = 10


@dataclass(frozen=True)
class Card:
    """What the view shows of a household.

    Attributes:
        state: a sentence.
        basket: titles, oldest first.
        following: titles of its next products, best first, and whether each is new since the list before.
        origin: what ordered them.
    """

    household: str
    state: str
    basket: tuple[str, ...]
    following: tuple[tuple[str, bool], ...]
    origin: str


class Spotlight:
    """Picks the followed household with the most left to buy, and stays with it until its basket is complete.

    Args:
        purchases: the live ones.
        titles: by item id.
        fixed: the one household to stay with, whose baskets may be far apart.
    """

    def __init__(
        self,
        purchases: Purchases,
        tills: Tills,
        measurement: Measurement,
        titles: Mapping[str, str],
        fixed: str | None = None,
    ) -> None:
        self._purchases = purchases
        self._tills = tills
        self._measurement = measurement
        self._titles = titles
        self._fixed = fixed
        self._basket: Basket | None = None
        self._shown: RecommendationList | None = None
        self._new: frozenset[str] = frozenset()
        self._choose()

    @property
    def household(self) -> str | None:
        """Who is followed now; None while nobody who could be is at a till."""
        return self._fixed or (str(self._basket.household) if self._basket else None)

    def sold(self, sale: Sale) -> None:
        """Something was bought by somebody: maybe the basket in view is complete, maybe another one begins."""
        if self._basket is None or self._basket.left == 0:
            self._choose()

    def card(self) -> Card | None:
        """What to show now. "New" is judged against the card before."""
        household = self.household
        if household is None:
            return None
        ranked = self._measurement.latest(household)
        shown = ranked.items[:_SHOWN] if ranked else ()
        if ranked is not self._shown:
            before = {item.item_id for item in self._shown.items[:_SHOWN]} if self._shown else set()
            self._new = frozenset(item.item_id for item in shown if before and item.item_id not in before)
            self._shown = ranked
        basket = self._basket
        bought = self._purchases.product[basket.start : basket.next].tolist() if basket else []
        if basket is None:
            state = "not at a till yet"
        elif basket.left:
            state = f"at the till: {len(bought)} in the basket, {basket.left} to come"
        else:
            state = f"paid for {len(bought)}; waiting for the next basket"
        return Card(
            household,
            state,
            tuple(self._title(str(product)) for product in bought),
            tuple((self._title(item.item_id), item.item_id in self._new) for item in shown),
            _origin(ranked),
        )

    def _choose(self) -> None:
        open_now = [basket for basket in self._tills.open if self._may_follow(basket)]
        if not open_now:
            if self._fixed is None:
                self._basket = None
            return
        chosen = max(open_now, key=lambda basket: (basket.left, -basket.start))
        if self._basket is None or chosen.household != self._basket.household:
            self._shown, self._new = None, frozenset()
        self._basket = chosen

    def _may_follow(self, basket: Basket) -> bool:
        household = str(basket.household)
        return household == self._fixed if self._fixed else household in self._measurement

    def _title(self, item_id: str) -> str:
        return self._titles.get(item_id) or f"item {item_id}"


def _origin(ranked: RecommendationList | None) -> str:
    """The name of what ordered a list; before the first list nothing did, and nothing is known of the household."""
    if ranked is None:
        return str(Origin.POPULARITY)
    return f"model version {ranked.model_version}" if ranked.origin == Origin.MODEL else str(ranked.origin)
