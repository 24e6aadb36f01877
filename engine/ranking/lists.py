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
from engine.features.table import Crowd, candidate_features, trend_half_lives, trend_of
from engine.features.votes import count_votes, gather_voters
from engine.index.base import Hits
from engine.inference.dense import cosines
from engine.inference.ranker_forward import RankerForward
from engine.ranking.asked import Asked
from engine.ranking.candidates import Hidden, propose
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
        features: [B, C, FEATURES] float32.
        vector: [B, d] the encoded sessions.
        floor: [B] the cosine that an item needs to be found by the index; -inf: any is found.
        hidden: of each query, what would be a candidate if it could be listed.
    """

    row: Longs
    source: Longs
    cosine: Floats
    features: Tensor
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
    voters = gather_voters(moment.graph, history, torch.from_numpy(asked.users), asked.clock_ms)
    items: Floats = model.items.numpy()
    found = propose(asked, vector, model.search, items, voters, moment, config)
    # Step 3. Features.
    at = np.maximum(found.row, 0)
    cosine = cosines(items, at, vector)
    share = torch.from_numpy(moment.popularity.share(at.reshape(-1))).view(at.shape)
    habit = torch.from_numpy(model.habit.numpy()[at])
    rows = torch.from_numpy(found.row)
    crowd = Crowd(share, _trend(moment, at, config), count_votes(voters, rows), habit, found.following)
    clock_ms = torch.full((len(asked),), moment.clock_ms)
    if asked.clock_ms is not None:
        clock_ms = torch.from_numpy(asked.clock_ms)
    features = candidate_features(rows, history, crowd, moment.group, clock_ms)
    return Weighed(found.row, found.source, cosine, features, vector, found.floor, found.hidden)


def _trimmed(history: Neighbors) -> Neighbors:
    """Without the columns in which nobody has an event: as a rule a ring is not full."""
    there: NDArray[np.bool_] = np.logical_or.reduce(history.row.numpy() >= 0, axis=0)
    return history.last(max(1, len(there) - int(there.argmax()) if there.any() else 1))


def _trend(moment: Moment, item: Longs, config: RankingConfig) -> Tensor:
    """[B, C, TRENDS] of items [B, C]."""
    rows = np.concatenate([item.reshape(-1), moment.popularity.top(config.popular_candidates)])
    counts = torch.from_numpy(moment.counts_under(trend_half_lives(moment.half_lives), rows))
    return trend_of(counts[: item.size], counts[item.size :]).view(*item.shape, counts.shape[1])
