"""One model with everything that is computed from it: what a response reads, it reads from one generation.

Building runs aside, on a copy of the graph; the engine's thread then makes the result live by one assignment and
brings the rows that changed meanwhile up to date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.config import Config
from engine.index.hnsw import BuildStoppedError
from engine.index.live import LiveIndex
from engine.inference.embedder import Embedder
from engine.model.recommender import Recommender
from engine.model.weights import Weights, WeightsError
from engine.state.graph import Graph
from engine.state.state import Folded, State


@dataclass(frozen=True)
class Generation:
    """A served model. Only the engine's thread touches `embedder` and `index` once it is live."""

    version: int
    metrics: Mapping[str, float]
    model: Recommender
    embedder: Embedder
    index: LiveIndex

    def follow(self, state: State, folded: Folded) -> int:
        """Brings embeddings and index up to date with one folded batch; returns how many rows were recomputed."""
        rows = self.embedder.refresh(state.graph, state.items.ids(), state.catalog.contents(), len(state.users), folded)
        return self._reindex(state, rows)

    def spread(self, state: State) -> int:
        """Lets some of the items follow whose neighbors have moved; returns how many."""
        return self._reindex(state, self.embedder.spread(state.graph))

    def _reindex(self, state: State, rows: Tensor) -> int:
        if len(rows):
            deleted = state.catalog.deleted(rows.numpy())
            live = rows[torch.from_numpy(~deleted)]
            self.index.update(live.numpy(), self.embedder.items[live].numpy())
            self.index.delete(rows.numpy()[deleted])
        return len(rows)


@dataclass(frozen=True)
class Frozen:
    """A copy of what a generation is built from; later events don't touch it."""

    graph: Graph
    item_ids: Sequence[str]
    content: Tensor
    users: int
    live: np.ndarray  # [n] int64 rows of the items that are not deleted

    @classmethod
    def of(cls, state: State) -> Frozen:
        rows = np.arange(len(state.items))
        return cls(
            state.graph.clone(),
            list(state.items.ids()),
            state.catalog.contents().clone(),
            len(state.users),
            rows[~state.catalog.deleted(rows)],
        )


def check_fits(weights: Weights, config: Config) -> None:
    """Raises WeightsError where a model can't run over this engine's state."""
    shape = weights.model.shape
    content_dim = config.state.content_dim + config.state.features_dim
    if shape.content_dim != content_dim:
        raise WeightsError(
            f"content_dim must be {content_dim} (state.content_dim + features_dim), got {shape.content_dim}"
        )
    if shape.kinds < len(config.events.kinds):
        raise WeightsError(f"kinds must be >= {len(config.events.kinds)} (events.kinds), got {shape.kinds}")
    if shape.window > config.state.history:
        raise WeightsError(f"window must be <= {config.state.history} (state.history), got {shape.window}")


def build_generation(
    weights: Weights,
    version: int,
    metrics: Mapping[str, float],
    frozen: Frozen,
    config: Config,
    stopped: Callable[[], bool] = lambda: False,
) -> Generation:
    """Computes all embeddings and a new index. Takes seconds; meant for a thread of its own.

    Raises:
        WeightsError: the embeddings are not finite.
        BuildStoppedError: `stopped`, asked now and then, returned True.
    """
    embedder = Embedder(weights.model, weights.vocabulary, config.inference)
    embedder.build(frozen.graph, frozen.item_ids, frozen.content, frozen.users, stopped)
    if stopped():
        raise BuildStoppedError(f"the build of model version {version} was stopped")
    vectors = embedder.items.numpy()[frozen.live]
    if not np.isfinite(vectors).all():
        raise WeightsError("the model gives embeddings that are not finite on the live graph")
    index = LiveIndex.build(frozen.live, vectors, config.index, stopped)
    return Generation(version, metrics, weights.model, embedder, index)
