"""How item vectors move: the engine's own state and embedder, fed with a grocer's real purchases.

Shapes: N item rows, R rows of one update, Q queries, d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.demo.data import Purchases, data_folder, read_items, read_purchases
from engine.config import Config
from engine.events.batch import CatalogItem, Decoded, EventBatch
from engine.inference.embedder import Embedder
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights
from engine.state.state import Folded, State

WEEKS = 45  # of 53 that are history; purchases are replayed from then on
EVENTS = 64  # in a step
QUERIES = 4  # sessions of a step whose vectors are kept
_BATCH = 4096
_SEED = 0

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Update:
    """One call of `LiveIndex.update` as the engine made it.

    Attributes:
        rows: [R] items.
        step: [R, d] what was added to the vector of each.
    """

    rows: Rows
    step: Vectors


@dataclass(frozen=True)
class Recording:
    """A replay.

    Attributes:
        start: [N, d] vectors of all items before it.
        updates: two for each step: what its events touched, and what followed because a neighbor had moved.
        queries: [Q, d] session vectors of users who had just bought something.
    """

    start: Vectors
    updates: list[Update]
    queries: Vectors

    def distances(self) -> Vectors:
        """How far (L2) each refreshed row went, in order."""
        return np.concatenate([np.linalg.norm(update.step, axis=1) for update in self.updates])


@torch.inference_mode()
def record(history: int, steps: int, weights: Weights | None = None) -> Recording:
    """Folds the catalog and the latest `history` purchases, embeds all items, then replays `steps` batches.

    Args:
        weights: the model; none: one of the default shape that nobody has trained.
    """
    config = Config()
    past, live = read_purchases(data_folder(), WEEKS)
    past = past[len(past) - history :]
    state = State(config.state, config.events)
    state.fold(Decoded(EventBatch.empty(), _catalog(), (), {}))
    for first in range(0, history, _BATCH):
        state.fold(_decoded(past[first : first + _BATCH], first, config))
    weights = weights or _untrained(past, config)
    embedder = Embedder(weights.model, weights.vocabulary, config.inference, state.user_rows, state.item_rows)
    embedder.build(state.graph, state.items.ids(), state.catalog.contents(), state.users())
    start = embedder.items[: len(state.items)].numpy().copy()
    before, updates, queries = start.copy(), [], []
    for at in range(steps):
        batch = live[at * EVENTS : (at + 1) * EVENTS]
        folded = state.fold(_decoded(batch, history + at * EVENTS, config))
        if len(state.items) > len(before):
            before = np.concatenate([before, np.zeros((len(state.items) - len(before), start.shape[1]), np.float32)])
        for rows in _refresh(embedder, state, folded):
            after = embedder.items[torch.from_numpy(rows)].numpy()
            updates.append(Update(rows, after - before[rows]))
            before[rows] = after
        users = folded.user[-QUERIES:].tolist()
        sessions = state.histories(users).last(weights.model.shape.window)
        queries.append(weights.model.sequence(embedder.items, sessions)[:, -1].numpy())
    return Recording(start, updates, np.concatenate(queries))


def _refresh(embedder: Embedder, state: State, folded: Folded) -> Iterator[Rows]:
    yield embedder.refresh(state.graph, state.items.ids(), state.catalog.contents(), folded)
    yield embedder.spread(state.graph)


def _untrained(past: Purchases, config: Config) -> Weights:
    vocabulary = [str(product) for product in np.unique(past.product).tolist()]
    shape = ModelShape(
        vocabulary=len(vocabulary),
        content_dim=config.state.content_dim,
        kinds=len(config.events.kinds),
        blocks=1,
        window=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        model = Recommender(shape)
    return Weights(model.eval().requires_grad_(False), vocabulary)


def _catalog() -> list[CatalogItem]:
    return [CatalogItem(item.item_id, item.title, tuple(item.categories)) for item in read_items(data_folder())]


def _decoded(purchases: Purchases, first_offset: int, config: Config) -> Decoded:
    count = len(purchases)
    baskets, products = purchases.basket.tolist(), purchases.product.tolist()
    events = EventBatch(
        event_id=[f"{basket}-{product}" for basket, product in zip(baskets, products, strict=True)],
        user_id=[str(household) for household in purchases.household.tolist()],
        session_id=[str(basket) for basket in baskets],
        item_id=[str(product) for product in products],
        target_id=[""] * count,
        kind=np.full(count, list(config.events.kinds).index("purchase"), np.int8),
        time_ms=purchases.time_ms,
        value=np.maximum(1, purchases.quantity).astype(np.float32),
        partition=np.zeros(count, np.int32),
        offset=np.arange(first_offset, first_offset + count),
        timestamp_ms=purchases.time_ms,
        forget=np.zeros(count, np.bool_),
        ends=np.zeros(count, np.bool_),
    )
    return Decoded(events, (), (), {(config.kafka.events_topic, 0): first_offset + count})
