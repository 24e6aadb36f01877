"""The one way in which a model's lists are made: candidates, features, scores, and the best of them.

The engine, the canary, the trainer's walk and its evaluation call it, so that what is measured is what is served.

Shapes: B queries, C candidates of each, N items, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.features.live import Live, Tables
from engine.index.base import Hits
from engine.inference.ranker_forward import RankerForward
from engine.ranking.asked import Asked
from engine.ranking.candidates import asks_of, breadth_of, fill_up, hits_of
from engine.ranking.list_kernels import Listable, Ranked, rank_rows, weigh_lists
from engine.ranking.moment import Moment
from engine.ranking.page import Page
from engine.ranking.side_by_side import ALONE, SideBySide
from engine.state.ring import History

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


class ListModel(Protocol):
    """What lists need of a model: in the engine a generation has it, in a training the weights as they are.

    Attributes:
        tables: the embeddings and habits of items.
        ranker: see `RankerForward`.
    """

    @property
    def tables(self) -> Tables: ...
    @property
    def ranker(self) -> RankerForward: ...

    def encoded(self, users: Longs, history: History) -> Floats:
        """[B, d] of users of whom `history` [B, K] is known."""

    def search(self, vectors: Floats, k: int) -> Hits:
        """The k best items of each session [B, d], of those that may be shown."""


class Weighed(NamedTuple):
    """Candidates of B queries, each of which may be listed, with all that their order is made from.

    Attributes:
        listable: the candidates, and what would be one if it could be listed.
        cosine: [B, C] float32 of each candidate with the session.
        features: [B, C, FEATURES] float32, zeros behind the last.
        vector: [B, d] the encoded sessions.
        floor: [B] the cosine that an item needs to be found by the index; -inf: any is found.
    """

    listable: Listable
    cosine: Floats
    features: Floats
    vector: Floats
    floor: Floats


class Made(NamedTuple):
    """Lists with what they were made of."""

    weighed: Weighed
    ranked: Ranked

    @property
    def pages(self) -> list[Page]:
        """One for each query."""
        _, row, score, source, size = self.ranked
        return [Page(row[b, :n], score[b, :n], source[b, :n]) for b, n in enumerate(size.tolist())]


class Found(NamedTuple):
    """The sessions of B queries, and the items that the index has found near each.

    Attributes:
        vector: [B, d] the encoded sessions.
        near: [B, k] rows near each, -1 where there are fewer.
        floor: [B] see `Weighed`.
        popular: [B] how many of the popular items each is proposed.
    """

    vector: Floats
    near: Longs
    floor: Floats
    popular: Longs

    def part(self, span: slice) -> Found:
        return Found(self.vector[span], self.near[span], self.floor[span], self.popular[span])


def make_lists(asked: Asked, moment: Moment, model: ListModel, config: RankingConfig) -> Made:
    """The model's list for each of B queries; none depends on the others."""
    ((_, made),) = make_parts(asked, moment, model, config, ALONE)
    return made


def make_parts(
    asked: Asked, moment: Moment, model: ListModel, config: RankingConfig, threads: SideBySide
) -> list[tuple[slice, Made]]:
    """The same in parts that are made side by side, and which of the queries each is of."""
    found, live = find(asked, moment, model, config), moment.live()

    def make(span: slice) -> Made:
        some = asked.part(span)
        weighed = weigh_found(some, found.part(span), live, moment, model, config)
        k = np.array([query.k for query in some.queries])
        return Made(weighed, rank_rows(weighed.listable, weighed.cosine, weighed.features, model.ranker.weights, k))

    return threads.map(make, len(asked))


def weigh(asked: Asked, moment: Moment, model: ListModel, config: RankingConfig) -> Weighed:
    """The candidates of B queries, and what is known of each."""
    return weigh_found(asked, find(asked, moment, model, config), moment.live(), moment, model, config)


def find(asked: Asked, moment: Moment, model: ListModel, config: RankingConfig) -> Found:
    """Encodes the sessions, and searches for them."""
    vector = model.encoded(asked.users, asked.history)
    breadths = [breadth_of(query, moment.history, config) for query in asked.queries]
    near, floor = hits_of(asked, vector, model.search, model.tables.item, moment, breadths)
    return Found(vector, near, floor, np.array([breadth.popular for breadth in breadths]))


def weigh_found(
    asked: Asked, found: Found, live: Live, moment: Moment, model: ListModel, config: RankingConfig
) -> Weighed:
    """`weigh` of what is found already; it reads only, so that several threads may do it at one moment."""

    def weighed(rest: Sequence[Longs] | None) -> tuple[Listable, Floats, Floats]:
        asks = asks_of(asked, found.popular, moment.clock_ms, rest)
        sizes = config.neighbor_sources, config.popular_candidates
        return weigh_lists(found.near, found.vector, model.tables, asks, live, *sizes)

    listable, cosine, features = weighed(None)
    rest = fill_up(asked, listable, found.floor, moment)
    if rest is not None:
        listable, cosine, features = weighed(rest)
    return Weighed(listable, cosine, features, found.vector, found.floor)
