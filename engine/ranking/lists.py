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
from engine.features.live import Tables
from engine.index.base import Hits
from engine.inference.ranker_forward import RankerForward
from engine.ranking.asked import Asked
from engine.ranking.candidates import asks_of, breadth_of, fill_up, hits_of
from engine.ranking.list_kernels import Listable, Ranked, rank_rows, weigh_lists
from engine.ranking.moment import Moment
from engine.ranking.page import Page
from engine.state.ring import History

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


class ListModel(Protocol):
    """What lists need of a model: in the engine a generation has it, in a training the weights as they are.

    Attributes:
        tables: what it knows of items.
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


def make_lists(asked: Asked, moment: Moment, model: ListModel, config: RankingConfig) -> Made:
    """The model's list for each of B queries; none depends on the others."""
    weighed = weigh(asked, moment, model, config)
    k = np.array([query.k for query in asked.queries])
    return Made(weighed, rank_rows(weighed.listable, weighed.cosine, weighed.features, model.ranker.weights, k))


def weigh(asked: Asked, moment: Moment, model: ListModel, config: RankingConfig) -> Weighed:
    """The candidates, and what is known of each."""
    vector, tables = model.encoded(asked.users, asked.history), model.tables
    breadths = [breadth_of(query, moment.history, config) for query in asked.queries]
    index, floor = hits_of(asked, vector, model.search, tables.item, moment, breadths)
    live, popular = moment.live(), [breadth.popular for breadth in breadths]

    def weighed(rest: Sequence[Longs] | None) -> tuple[Listable, Floats, Floats]:
        asks = asks_of(asked, popular, moment.clock_ms, rest)
        return weigh_lists(index, vector, tables, asks, live, config.neighbor_sources, config.popular_candidates)

    listable, cosine, features = weighed(None)
    rest = fill_up(asked, listable, floor, moment)
    if rest is not None:
        listable, cosine, features = weighed(rest)
    return Weighed(listable, cosine, features, vector, floor)
