"""Answers queries: the model's order for users it knows, that of a scorer without a model for all others.

Shapes: B queries, C candidates of each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import RankingConfig
from engine.generation import Generation
from engine.inference.dense import cosines
from engine.model.candidates import INDEX_BIT
from engine.model.features import Crowd, candidate_features, trend_half_lives, trend_of
from engine.model.votes import count_votes, gather_voters
from engine.ranking.candidates import Breadth, breadth_of, propose
from engine.ranking.margins import margins
from engine.ranking.page import Page, pages
from engine.ranking.query import Basis, Origin, Position, Query, RankedItem, Ranking
from engine.ranking.scorers import SCORERS, WITHOUT_MODEL
from engine.state.ring import Neighbors
from engine.state.state import State


def recommend(
    queries: Sequence[Query],
    state: State,
    generation: Generation | None,
    config: RankingConfig,
) -> list[Ranking]:
    """One list per query, in order, all from the state and the generation as they are at the call."""
    reflects = tuple(
        Position(topic, partition, offset - 1)
        for (topic, partition), offset in sorted(state.positions.items())
        if topic == state.events_topic
    )
    now_ms = int(time.time() * 1000)
    users = state.find_users([query.subject for query in queries])
    answers: list[Ranking | None] = [None] * len(queries)
    if generation is not None:
        for alike in _by_breadth(queries, users, state, config):
            rows = [users[at] for at in alike]
            ranked = rank_by_model(
                [queries[at] for at in alike], rows, state.histories(rows), state, generation, config, now_ms
            )
            for at, (items, basis) in zip(alike, ranked, strict=True):
                answers[at] = Ranking(items, Origin.MODEL, True, generation.version, reflects, basis)
    version = generation.version if generation else 0
    rest = [at for at, answer in enumerate(answers) if answer is None]
    asked, rows = [queries[at] for at in rest], [users[at] for at in rest]
    for at, one in zip(rest, SCORERS[WITHOUT_MODEL](asked, rows, state, config, now_ms), strict=True):
        answers[at] = Ranking(one.items, one.origin, users[at] >= 0, version, reflects, one.basis)
    return [answer for answer in answers if answer is not None]


def _by_breadth(
    queries: Sequence[Query], users: Sequence[int], state: State, config: RankingConfig
) -> Iterable[list[int]]:
    """Places of the queries of known users, those of one breadth together: one of many items must not widen others."""
    alike: dict[Breadth, list[int]] = {}
    for at, (query, user) in enumerate(zip(queries, users, strict=True)):
        if user >= 0:
            alike.setdefault(breadth_of(query, state.graph.user_items.size, config), []).append(at)
    return alike.values()


@torch.inference_mode()
def rank_by_model(
    queries: Sequence[Query],
    users: Sequence[int],
    history: Neighbors,
    state: State,
    generation: Generation,
    config: RankingConfig,
    now_ms: int,
) -> list[tuple[tuple[RankedItem, ...], Basis]]:
    """The model's order for users [B] of whom `history` [B, K] is known, or is to be taken as known.

    Args:
        queries: of one breadth.
    """
    history = _trimmed(history)
    table = generation.embedder.items
    encoded = generation.sessions.encoded(users, history, table, generation.goal)  # [B, d]
    voters = gather_voters(state.graph, history, torch.tensor(users))
    proposed = propose(queries, history, encoded, state, generation, config, voters.following, now_ms)
    found, floor = proposed.candidates, proposed.floor
    item = found.item.clamp_min(0)  # [B, C]
    flat = item.numpy().reshape(-1)
    cosine = cosines(table.numpy(), item.numpy(), encoded.numpy())
    share = torch.from_numpy(state.popularity.share(flat)).view(item.shape)
    trend = _trend(state, item, config)
    habit = torch.from_numpy(generation.embedder.habit.numpy()[item.numpy()])
    crowd = Crowd(share, trend, count_votes(voters, found.item), habit, found.following)
    clock_ms = torch.full((len(users),), state.newest_ms)
    features = candidate_features(found.item, history, crowd, state.catalog.group, clock_ms)
    score = generation.ranker.score(cosine, features)  # [B, C]
    rows = found.item.numpy()
    made = pages(rows, score, found.source.numpy(), proposed.allowed, [query.k for query in queries], state)
    hit = (found.source.numpy() & INDEX_BIT) > 0
    margin = margins(rows, score, cosine, hit, floor, made, queries, generation.ranker.slope)
    vectors, scale = encoded.numpy(), state.popularity_scale
    popular = breadth_of(queries[0], state.graph.user_items.size, config).popular
    count = (rows >= 0).sum(axis=1).tolist()
    return [
        (
            page.items,
            Basis(
                query, generation.version, *_weighed(hidden, rows[b, :n], margin.low[b, :n], margin.high[b, :n]),
                vectors[b].copy(), float(floor[b]), scale, _last(page), popular,
            ),
        )
        for b, (query, page, n, hidden) in enumerate(zip(queries, made, count, proposed.hidden, strict=True))
    ]  # fmt: skip


def _weighed(
    hidden: NDArray[np.int64], rows: NDArray[np.int64], low: NDArray[np.float32], high: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Candidates with their margins, behind the hidden items: these may move however they like while they are hidden.

    Of an item that is both, the last counts.
    """
    far = np.full(len(hidden), np.inf, np.float32)
    return (
        np.concatenate([hidden, rows]).astype(np.int32),
        np.concatenate([-far, low]),
        np.concatenate([far, high]),
    )


def _last(page: Page) -> int:
    return int(page.rows[-1]) if len(page.rows) else -1


def _trimmed(history: Neighbors) -> Neighbors:
    """Without the columns in which nobody has an event: as a rule a ring is not full."""
    there: NDArray[np.bool_] = np.logical_or.reduce(history.row.numpy() >= 0, axis=0)
    return history.last(max(1, len(there) - int(there.argmax()) if there.any() else 1))


def _trend(state: State, item: Tensor, config: RankingConfig) -> Tensor:
    """[B, C, TRENDS] of items [B, C]."""
    rows = np.concatenate([item.numpy().reshape(-1), state.popularity.top(config.popular_candidates)])
    counts = torch.from_numpy(state.decayed_counts_under(trend_half_lives(len(state.half_lives_s)), rows))
    return trend_of(counts[: item.numel()], counts[item.numel() :]).view(*item.shape, counts.shape[1])
