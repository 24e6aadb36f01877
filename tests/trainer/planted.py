"""A small log with a pattern that only order tells: after A_i comes B_i."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import torch

from engine.config import EventsConfig, RankingConfig, StateConfig
from engine.events.batch import CatalogItem, Decoded, EventBatch
from engine.state.graph import LiveGraph
from trainer.config import Recipe
from trainer.replay import Replay, TrainingData
from trainer.train import Trained

KINDS = EventsConfig()
PAIRS = 40
RANKING = RankingConfig(index_candidates=30, popular_candidates=5)
BEGIN_MS = 1_700_000_000_000


def decoded(
    user: list[str],
    item: list[str],
    time_ms: list[int],
    session: list[str],
    items: list[CatalogItem],
    *,
    first_offset: int = 0,
    partition: int = 0,
    event_id: list[str] | None = None,
    forget: Collection[int] = (),
) -> Decoded:
    """One batch of purchases from one partition; `forget` are positions of records that are none but forget."""
    events = len(user)
    at = np.arange(events, dtype=np.int64)
    kind = np.full(events, list(KINDS.kinds).index("purchase"), dtype=np.int8)
    times = np.array(time_ms, dtype=np.int64)
    forgets = np.isin(at, list(forget))
    batch = EventBatch(
        event_id=event_id or [""] * events,
        user_id=user,
        session_id=session,
        item_id=["" if forgotten else name for name, forgotten in zip(item, forgets, strict=True)],
        target_id=[""] * events,
        kind=kind,
        time_ms=times,
        value=np.ones(events, dtype=np.float32),
        partition=np.full(events, partition, dtype=np.int32),
        offset=first_offset + at,
        timestamp_ms=times,
        forget=forgets,
        ends=np.zeros(events, dtype=np.bool_),
    )
    positions = {("ousel.events", partition): first_offset + events} if events else {}
    if items:
        positions["ousel.items", 0] = len(items)
    return Decoded(batch, items, [], positions)


def planted_log(
    events: int, seed: int = 0, users: int = 30, *, catalog: str = "", shift: int = 0, pairs: int = PAIRS
) -> Decoded:
    """Sessions of two events by random users: a random A_i, then its B_i. Every item is as popular as any other.

    Args:
        catalog: what all item ids begin with; titles are those of any other catalog.
        shift: B_i has the title of B_(i+shift).
        pairs: the first ones, which come up.
    """
    random = np.random.default_rng(seed)
    # Drawn session by session, so that a shorter log is a prefix of a longer one.
    drawn, who = random.integers((pairs, users), size=(events // 2, 2)).T
    user = [f"u{u}" for u in who for _ in range(2)]
    item = [f"{catalog}{side}{pair}" for pair in drawn for side in "AB"]
    session = [f"s{at // 2}" for at in range(len(user))]
    items = [
        CatalogItem(f"{catalog}{side}{pair}", title=f"{side} {(pair + by) % PAIRS}")
        for pair in range(PAIRS)
        for side, by in (("A", 0), ("B", shift))
    ]
    return decoded(user, item, [BEGIN_MS + 60_000 * at for at in range(len(user))], session, items)


def replayed(
    batch: Decoded,
    history: int = 16,
    neighbors: int = 4,
    content_dim: int = 16,
    ranking: RankingConfig = RANKING,
) -> Replay:
    state = StateConfig(history=history, neighbors=neighbors, content_dim=content_dim)
    replay = Replay(state, KINDS, 100_000, ranking=ranking)
    replay.fold(batch)
    return replay


def last_of(models: Iterator[Trained]) -> Trained:
    """The last model that a training gives."""
    *_, last = models
    return last


def edges_of(graph: LiveGraph, data: TrainingData) -> list[list[object]]:
    """All that the rings say of all users and items."""
    users, items = torch.arange(data.users), torch.arange(data.items)
    rings = ((graph.user_items, users), (graph.item_users, items), (graph.item_next, items))
    return [column.tolist() for ring, rows in rings for column in ring.latest(rows).columns()]


def small_config(**changes: object) -> Recipe:
    """A model and a run that take a second: steps that are told, one part, and no more of it."""
    settings: dict[str, object] = {
        "dim": 16, "window": 8, "blocks": 1, "batch": 32, "negatives": 32, "chunks": 3, "max_steps": 60,
        "ranker_samples": 400, "ranker_epochs": 3, "evaluation_samples": 300, "holdout_share": 0.15,
        "learning_rate": 0.02, "min_events": 10, "min_count": 3, "dropout": 0.0, "id_dropout": 0.2,
        "weight_decay": 0.01, "patience": 0, "refit": False, "graph_share": 0.0,
    }  # fmt: skip
    return Recipe.model_validate(settings | changes)
