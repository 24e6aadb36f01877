"""Walks a slice of the log in order with the live state and frozen weights, as the engine would have served it.

Shapes: B events predicted, C candidates of each, N items, d width, K remembered events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.model.candidates import gather_candidates
from engine.model.features import Crowd, candidate_features, trend_half_lives, trend_of
from engine.model.votes import count_votes, gather_voters
from engine.state.graph import Graph, LiveGraph
from engine.state.popularity import Popularity
from engine.state.ring import Neighbors
from trainer.config import TrainSection
from trainer.dataset import Histories
from trainer.forward import ItemForward
from trainer.live_fold import LiveFold
from trainer.replay import TrainingData

_AT_ONCE = 256  # events folded in one go; what other users did within them is not seen yet


@dataclass(frozen=True)
class Moment:
    """Events to predict, and the state just before them.

    Attributes:
        events: [B] int64 positions in the log.
        users: [B] int64 whose they are.
        history: [B, K] each user's events before; at least one.
        popularity: under each half-life of the state.
        table: [N, d] embeddings of all items.
        now_ms: [B] int64 time of the newest event of all that is known then.
        group: [N] what stands for each item's categories.
    """

    events: Tensor
    users: Tensor
    history: Neighbors
    graph: LiveGraph
    popularity: Sequence[Popularity]
    table: Tensor
    now_ms: Tensor
    group: NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """What the ranker orders for B events.

    Attributes:
        item: [B, C] int64 candidates, -1 padded.
        score: [B, C] float32 session logits.
        features: [B, C, FEATURES] float32.
    """

    item: Tensor
    score: Tensor
    features: Tensor


def empty_graph(data: TrainingData) -> Graph:
    return Graph.empty(data.state.history, data.state.neighbors, data.users, data.items)


@torch.no_grad()
def walk(
    forward: ItemForward, data: TrainingData, histories: Histories, first: int, last: int, samples: int, seed: int
) -> Iterator[Moment]:
    """Moments before about `samples` evenly drawn events of first..last-1."""
    log = data.log
    live = LiveFold(data.state, data.users, data.items, data.kind_weight)
    graph, popularity = live.graph, live.popularity
    for one in popularity:
        one.hide(data.deleted.nonzero()[0], data.deleted[data.deleted])
    live.fold(log.slice(0, first))
    table = forward.table(graph)
    newest_ms = log.time_ms.cummax(0).values if len(log) else log.time_ms
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(last - first, generator=generator) < samples / max(1, last - first)
    for start in range(first, last, _AT_ONCE):
        end = min(last, start + _AT_ONCE)
        events = start + chosen[start - first : end - first].nonzero().squeeze(1)
        history = histories.before(events, data.state.history)
        known = history.row[:, -1] >= 0
        if bool(known.any()):
            users = log.user[events[known]]
            now_ms = newest_ms[start - 1].expand(len(users)) if start else torch.zeros_like(users)
            yield Moment(events[known], users, history.select(known), graph, popularity, table, now_ms, data.group)
        live.fold(log.slice(start, end))
        touched = torch.cat([log.item[start:end], log.previous[start:end]]).unique()
        touched = touched[touched >= 0]
        table[touched] = forward(touched, graph)


@torch.no_grad()
def make_lists(forward: ItemForward, moment: Moment, deleted: Tensor, config: TrainSection) -> Lists:
    """Candidates as the engine makes them, by exact search instead of the index."""
    model, table = forward.model, moment.table
    query = model.sequence.latest(table, moment.history)  # [B, d]
    cosine = (query @ table.T).masked_fill_(deleted, -2.0)  # [B, N]
    index = cosine.topk(min(config.index_candidates, cosine.shape[1])).indices
    popular = torch.from_numpy(moment.popularity[0].top(config.popular_candidates))
    found = gather_candidates(moment.graph, moment.history, index, popular, config.neighbor_sources)
    at = found.item.clamp_min(0)
    item = found.item.masked_fill(deleted[at], -1)
    share = torch.from_numpy(moment.popularity[0].share())[at]
    trends = [moment.popularity[h] for h in trend_half_lives(len(moment.popularity))]
    counts = torch.stack([torch.from_numpy(one.score) for one in trends], dim=-1)  # [N, TRENDS]
    votes = count_votes(gather_voters(moment.graph, moment.history, moment.users), item)
    crowd = Crowd(share, trend_of(counts[at], counts[popular]), votes, forward.habit(at), found.following)
    features = candidate_features(item, moment.history, crowd, moment.group, moment.now_ms)
    return Lists(item, model.logits(cosine.gather(1, at)), features)
