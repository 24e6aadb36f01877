"""The one way in which a model's lists are made: candidates, features, scores, and the best of them.

The engine, the canary, the trainer's walk and its evaluation call it, so that what is measured is what is served.

Shapes: B queries, C candidates of each, N items, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import RankingConfig
from engine.features.table import FEATURES, trend_half_lives
from engine.features.votes import gather_voters
from engine.index.base import Hits
from engine.inference.ranker_forward import RankerForward, padded_width
from engine.ranking.asked import Asked
from engine.ranking.candidates import Hidden, propose
from engine.ranking.list_kernels import weigh_rows
from engine.ranking.moment import Moment
from engine.ranking.page import Page, pages
from engine.state.ring import Neighbors

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


class ListModel(Protocol):
    """What lists need of a model: in the engine a generation has it, in a training the weights as they are.

    Attributes:
        items: [N, d] embeddings.
        habit: [N, HABITS] what the model knows of how each item is had again.
        ranker: see `RankerForward`.
    """

    @property
    def items(self) -> Tensor: ...
    @property
    def habit(self) -> Tensor: ...
    @property
    def ranker(self) -> RankerForward: ...

    def encoded(self, users: Sequence[int], history: Neighbors) -> Tensor:
        """[B, d] of users of whom `history` [B, K] is known."""

    def search(self, vectors: Floats, k: int) -> Hits:
        """The k best items of each session [B, d], of those that may be shown."""


@dataclass(frozen=True)
class Weighed:
    """Candidates of B queries, each of which may be listed, with all that their order is made from.

    Attributes:
        row: [B, C] int64 item rows in rising order, -1 behind the last.
        source: [B, C] int64 bits of the sources that proposed each.
        cosine: [B, C] float32 with the session.
        features: [B, at least C, FEATURES] float32, zeros behind the last.
        vector: [B, d] the encoded sessions.
        floor: [B] the cosine that an item needs to be found by the index; -inf: any is found.
        hidden: of each query, what would be a candidate if it could be listed.
    """

    row: Longs
    source: Longs
    cosine: Floats
    features: Floats
    vector: Floats
    floor: Floats
    hidden: Sequence[Hidden]


class Made(NamedTuple):
    """Lists with what they were made of: `score` [B, C] of the candidates."""

    weighed: Weighed
    score: Floats
    pages: Sequence[Page]


def make_lists(asked: Asked, moment: Moment, model: ListModel, config: RankingConfig) -> Made:
    """The model's list for each of B queries; none depends on the others."""
    weighed = weigh(asked, moment, model, config)
    score = model.ranker.score(weighed.cosine, weighed.features)
    return Made(weighed, score, pages(weighed.row, score, weighed.source, [query.k for query in asked.queries]))


@torch.inference_mode()
def weigh(asked: Asked, moment: Moment, model: ListModel, config: RankingConfig) -> Weighed:
    """The candidates, and what is known of each."""
    # Step 1. The session.
    history = _trimmed(asked.history)
    asked = replace(asked, history=history)
    vector: Floats = model.encoded(asked.users.tolist(), history).numpy()
    # Step 2. Candidates, without those that may not be listed.
    voters = gather_voters(moment.graph, history, asked.users, asked.clock_ms)
    items: Floats = model.items.numpy()
    found = propose(asked, vector, model.search, items, voters, moment, config)
    # Step 3. Features.
    row, popularity = found.row, moment.popularity
    trends = trend_half_lives(moment.half_lives)
    counts = moment.counts_under(trends, row.reshape(-1))
    of_popular = moment.counts_under(trends, popularity.top(config.popular_candidates))
    clock_ms = np.full(len(asked), moment.clock_ms) if asked.clock_ms is None else asked.clock_ms
    events, time_ms, _, _, session = history.arrays()
    features = np.zeros((len(row), padded_width(row.shape[1]), FEATURES), np.float32)
    cosine = weigh_rows(
        row, vector, (items, model.habit.numpy()), (popularity.score, popularity.total, counts, of_popular),
        (*voters,), (events, time_ms, session), (found.following, moment.group, clock_ms), features,
    )  # fmt: skip
    return Weighed(row, found.source, cosine, features, vector, found.floor, found.hidden)


def _trimmed(history: Neighbors) -> Neighbors:
    """Without the columns in which nobody has an event: as a rule a ring is not full."""
    there: NDArray[np.bool_] = np.logical_or.reduce(history.row.numpy() >= 0, axis=0)
    return history.last(max(1, len(there) - int(there.argmax()) if there.any() else 1))
