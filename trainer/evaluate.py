"""Judges frozen weights on a slice of the log in log order: is the next item among the k that would have been shown?

Shapes: B events, C candidates of each, N items, K remembered events.
"""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

from engine.ranking.lists import make_lists
from engine.ranking.query import Query
from engine.ranking.related import padded
from engine.signals import Stopped
from engine.state.ring import Neighbors
from trainer.config import TrainSection
from trainer.dataset import Histories
from trainer.forward import ItemForward
from trainer.progress import Progress
from trainer.replay import TrainingData
from trainer.walk import walk

K = 20
_QUERY = Query("", "", K)


def evaluate(
    forward: ItemForward,
    data: TrainingData,
    histories: Histories,
    first: int,
    last: int,
    config: TrainSection,
    stop: threading.Event,
    progress: Progress,
) -> dict[str, float]:
    """Predicts a sample of events first..last-1 from what was known just before each.

    Events of users without any event before are left out: they get the popular list. The two baselines see the same
    events: decayed popularity, and what the user had most often (ties by the newest), both without the items of the
    user's current session.

    Returns:
        hit_rate@20 and ndcg@20 of the model; the same with `popularity_` and `frequency_` before them; and `events`.

    Raises:
        Stopped: `stop` was set.
    """
    ranks: dict[str, list[Tensor]] = {"": [], "popularity_": [], "frequency_": []}
    for point in walk(forward, data, histories, first, last, config.evaluation_samples, config.seed + 1, _QUERY):
        if stop.is_set():
            raise Stopped
        target, history = data.log.item[point.events], point.asked.history
        made = make_lists(point.asked, point.moment, point.model, data.ranking)
        ranks[""].append(rank_of(padded([page.row for page in made.pages]), target))
        popular = torch.from_numpy(point.moment.popularity.top(K + data.state.history)).expand(len(target), -1)
        ranks["popularity_"].append(rank_of(without_session(popular, history), target))
        ranks["frequency_"].append(rank_of(most_frequent(history), target))
        progress.update("evaluation", float(point.events[-1] - first) / max(1, last - first))
    metrics = {"events": float(sum(map(len, ranks[""])))}
    for name, parts in ranks.items():
        rank = torch.cat(parts) if parts else torch.full((1,), -1)
        metrics[f"{name}hit_rate@{K}"] = (rank >= 0).float().mean().item()
        metrics[f"{name}ndcg@{K}"] = ndcg(rank).mean().item()
    return metrics


def rank_of(shown: Tensor, target: Tensor) -> Tensor:
    """[B] place of `target` [B] in `shown` [B, k] from 0, -1 where it is not among the first 20."""
    hit = shown[:, :K] == target[:, None]
    return torch.where(hit.any(1), hit.to(torch.int8).argmax(1), -1)


def ndcg(rank: Tensor) -> Tensor:
    """[B] what a target at place `rank` [B] gains, 0 where it is not shown (-1)."""
    return torch.where(rank >= 0, math.log(2) / torch.log(rank.float() + 2), 0.0)


def without_session(items: Tensor, history: Neighbors) -> Tensor:
    """The first 20 of `items` [B, n], which keep their order, that the user's current session lacks; -1 pads."""
    session = history.row.masked_fill(history.session != history.session[:, -1:], -2)
    gone = (items[:, :, None] == session[:, None, :]).any(-1) | (items < 0)
    order = gone.to(torch.int8).sort(dim=1, stable=True).indices[:, :K]
    return items.gather(1, order).masked_fill(gone.gather(1, order), -1)


def most_frequent(history: Neighbors) -> Tensor:
    """[B, 20] the user's most frequent remembered items outside the current session, ties by the newest; -1 pads."""
    same = history.row[:, :, None] == history.row[:, None, :]  # [B, K, K]
    place = torch.arange(history.row.shape[1])
    count = same.sum(-1)
    newest = torch.where(same, place, -1).amax(-1) == place  # one entry per item: its last
    current = (same & (history.session == history.session[:, -1:])[:, None, :]).any(-1)
    key = torch.where(newest & history.mask & ~current, count * len(place) + place, -1)
    best = key.topk(min(K, key.shape[1])).indices
    return history.row.gather(1, best).masked_fill(key.gather(1, best) < 0, -1)
