"""Asks several makers of lists for what some users did last, from what they did before, a few users between two steps.

The events of a basket have one session and time, and are one question, as in a training; whoever has one of them in the
list hits it. Each question is of the past: the state has folded its answer already, and the lists leave out what the
rings hold from that time on. Else co-visitation would be led to the answer by the user's own last step, and would win
against models that are better. Popularity and item vectors know the answers, as some among very many events.

Shapes: U users, B of them at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from engine.config import RankingConfig
from engine.ranking.asked import Asked, Filter
from engine.ranking.moment import Moment, Now
from engine.ranking.page import Page
from engine.ranking.query import Query
from engine.ranking.scorers import SCORERS
from engine.state.graph import LiveGraph
from engine.state.ring import Neighbors
from engine.state.state import State

K = 20
MIN_HITS = 20  # of the best maker: with fewer, who hits more may be chance
_SAMPLE = 10  # users looked at for each that is tried, to find the recent ones among them
_PIECE = 4  # users asked about between two steps: a few ms of the engine's thread
_DEVIATIONS = 1.64  # of a difference of hits, beyond which it is no chance: 1 of 20 models as good is refused
_SEED = 20_240

Maker = Callable[[Asked, Moment, RankingConfig], Sequence[Page]]


def recent_users(users: Tensor, graph: LiveGraph, count: int) -> Tensor:
    """[U] int64 up to `count` of the rows `users` with two events or more, those with the newest events of a sample."""
    chance = torch.Generator().manual_seed(_SEED)
    some = users[torch.randperm(len(users), generator=chance)[: _SAMPLE * count]]
    last = graph.user_items.latest(some, 2)
    order = last.time_ms[:, -1].argsort(descending=True, stable=True)
    return some[order[last.mask.all(dim=1)[order]]][:count]


def basket_size(history: Neighbors) -> Tensor:
    """[B] how many of the newest events are of one session and time, so that their order says nothing; 0 of none."""
    newest = history.mask
    for column in (history.session, history.time_ms):
        newest = newest & (column == column[:, -1:])
    return newest.flip(1).to(torch.int64).cumprod(1).sum(1)


def scorer_makers() -> dict[str, Maker]:
    """The scorers that serve without a model, by name."""

    def maker(name: str) -> Maker:
        return lambda asked, moment, config: [scored.page for scored in SCORERS[name](asked, moment, config)]

    return {name: maker(name) for name in SCORERS}


class Contest:
    """Lists of several makers, for the same pasts of the same users.

    Args:
        users: [U] int64 rows.

    Attributes:
        hit: by maker, of each user with an event before the newest basket, whether an item of that is in the list.
        lists: by maker, the items of the lists that were made last.
    """

    def __init__(self, config: RankingConfig, users: Tensor, makers: Mapping[str, Maker]) -> None:
        self._config = config
        self._makers = makers
        self._pieces = list(users.split(_PIECE)) if len(users) else []
        self._waiting: list[str] = []  # makers that have not answered what is asked now
        self._asked: Asked | None = None
        self._newest: list[set[str]] = []
        self.hit: dict[str, list[bool]] = {name: [] for name in makers}
        self.lists: dict[str, list[set[str]]] = {}

    @property
    def tried(self) -> int:
        """Users that all makers were asked about."""
        return min(map(len, self.hit.values()), default=0)

    def hits(self, name: str) -> int:
        """How many of the users a maker hit."""
        return sum(self.hit[name])

    def step(self, state: State) -> bool:
        """Has one maker make a few lists, in the engine's thread; True once all are made."""
        if not self._waiting and self._pieces:
            self._ask(self._pieces.pop(), state)
        if self._waiting:
            self._answer(self._waiting.pop(0), state)
        return not self._waiting and not self._pieces

    def is_behind(self, name: str, other: str, share: float = 1.0) -> bool:
        """Whether one maker hits less than `share` of the hits of another, by more than chance explains."""
        # Where both hit alike, which of the two has a hit that the other lacks is a coin thrown `apart` times.
        apart = sum(one != another for one, another in zip(self.hit[name], self.hit[other], strict=True))
        return self.hits(name) < share * self.hits(other) - _DEVIATIONS * math.sqrt(apart)

    def _ask(self, users: Tensor, state: State) -> None:
        history = state.graph.user_items.latest(users)
        size = basket_size(history)
        before = history.earlier(size)
        there = before.mask[:, -1]  # some may be gone since
        if not bool(there.any()):
            return
        history, before = history.select(there), before.select(there)
        query = Query("", "", min(K, self._config.max_k))
        filters, ids = [Filter()] * len(before), state.items.ids()
        # By the clock of that event: a model that knows how long somebody was away expects other items after weeks.
        asked_ms = history.time_ms[:, -1].numpy()
        self._asked = Asked([query] * len(before), users[there].numpy(), before.arrays(), filters, clock_ms=asked_ms)
        baskets = zip(history.row.tolist(), size[there].tolist(), strict=True)
        self._newest = [{ids[row] for row in rows[-n:]} for rows, n in baskets]
        self._waiting = list(self._makers)

    def _answer(self, name: str, state: State) -> None:
        assert self._asked is not None
        pages = self._makers[name](self._asked, Now(state, int(time.time() * 1000)), self._config)
        ids = state.items.ids()
        self.lists[name] = [{ids[row] for row in page.row.tolist()} for page in pages]
        self.hit[name] += [bool(wanted & listed) for wanted, listed in zip(self._newest, self.lists[name], strict=True)]
