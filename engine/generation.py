"""One model with everything that is computed from it: what a response reads, it reads from one generation.

Building runs aside, on a copy of the graph; the engine's thread then makes the result live by one assignment and
brings the rows that changed meanwhile up to date.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import Config
from engine.control_groups import threads_beside_one
from engine.features.live import Tables
from engine.index.base import Hits
from engine.index.hnsw import BuildStoppedError, build_pieces
from engine.index.live import LiveIndex
from engine.inference.embedder import Embedder
from engine.inference.query_cache import QueryCache
from engine.inference.ranker_forward import RankerForward
from engine.inference.session_cache import SessionCache
from engine.model.recommender import Recommender
from engine.model.weights import Weights, WeightsError
from engine.pace import counted
from engine.state.copying import GraphCopy
from engine.state.graph import LiveGraph
from engine.state.ring import History
from engine.state.state import Folded, State

_QUERIES = 64  # that the index is measured with when it is built
_EMBEDDING_SHARE = 0.3  # of a build's time, about; the graph of the index takes the rest


@dataclass(frozen=True)
class Generation:
    """A served model. Only the engine's thread touches `embedder`, `sessions` and `index` once it is live.

    Attributes:
        goal: kind of event that queries are for; None: any.
        made_s: when it was accepted by the registry, or else built, since 1970.
    """

    version: int
    metrics: Mapping[str, float]
    model: Recommender
    embedder: Embedder
    sessions: QueryCache
    ranker: RankerForward
    index: LiveIndex
    goal: int | None = None
    made_s: float = field(default_factory=time.time)

    @property
    def tables(self) -> Tables:
        """The embeddings and habits of all items."""
        return Tables(self.embedder.items.numpy(), self.embedder.habit.numpy())

    def encoded(self, users: NDArray[np.int64], history: History) -> NDArray[np.float32]:
        """[B, d] the sessions of users of whom `history` [B, K] is known."""
        return self.sessions.encoded(users, history, self.embedder.items, self.goal)

    def search(self, vectors: NDArray[np.float32], k: int) -> Hits:
        """The k best items of each session [B, d]."""
        return self.index.search(vectors, k)

    def follow(self, state: State, folded: Folded) -> int:
        """Brings embeddings and index up to date with one folded batch; returns how many rows were recomputed."""
        if len(folded.gone_users) or len(folded.stale_users):
            self.sessions.forget(torch.cat([folded.gone_users, folded.stale_users]))
        rows = self.embedder.refresh(state.graph, state.items.ids(), state.catalog.contents(), folded)
        self._reindex(state, folded.timed.numpy())
        return self._reindex(state, rows)

    def spread(self, state: State, steps: int = 1) -> int:
        """Lets some of the items follow whose neighbors have moved, as many as `steps` may; returns how many."""
        return self._reindex(state, self.embedder.spread(state.graph, steps))

    def _reindex(self, state: State, rows: NDArray[np.int64]) -> int:
        """Has the index find those of `rows` [R] that may be shown now, by what they are now, and no others of them.

        Items that the model can't tell apart are no answers of the index: being equal, they would crowd out others.
        """
        if len(rows):
            available = state.availability.now(rows) & self.embedder.known.numpy()[rows]
            live = rows
            if not available.all():
                live = rows[available]
                self.index.delete(rows[~available])
            self.index.update(live, self.embedder.items.numpy()[live])
        return len(rows)


@dataclass(frozen=True)
class Frozen:
    """The state of one moment, to build a generation from; later events don't touch it.

    Attributes:
        users: [U] int64 rows of all users.
        live: [n] int64 rows of the items that are not deleted.
        available: [m] int64 those of them that may be shown.
    """

    graph: LiveGraph
    item_ids: Sequence[str]
    content: Tensor
    users: Tensor
    live: NDArray[np.int64]
    available: NDArray[np.int64]
    user_rows: int
    item_rows: int

    @classmethod
    def of(cls, state: State) -> Frozen:
        """All at once, which takes a while where there is much."""
        copy = FrozenCopy(state, 2**30)
        while not copy.step():
            pass
        return copy.frozen()


class FrozenCopy:
    """A `Frozen`, made piece by piece in the thread that folds."""

    def __init__(self, state: State, piece_bytes: int) -> None:
        rows = np.arange(len(state.items))
        self._frozen = partial(
            Frozen,
            item_ids=list(state.items.ids()),
            # The catalog is read as it goes on: what changes is embedded again when the generation catches up.
            content=state.catalog.contents(),
            users=state.users(),
            live=rows[~state.catalog.deleted(rows)],
            available=rows[state.availability.now(rows)],
            user_rows=state.user_rows,
            item_rows=state.item_rows,
        )
        self._graph = GraphCopy(state, piece_bytes)

    def step(self) -> bool:
        """Copies one piece; True once the copy is whole."""
        return self._graph.step()

    def frozen(self) -> Frozen:
        """The whole copy; may be called in any thread."""
        return self._frozen(graph=self._graph.graph())


@dataclass(frozen=True)
class Build:
    """How a model is built.

    Attributes:
        again: it has served before, or somebody has chosen it, so that the canary compares it with no other.
        named: the registry names it, so that its version may be below one that has served.
        made_s: when it was accepted, since 1970; None: now. A restart does not make a model younger.
        hurried: nobody is served meanwhile, so that it takes a whole core.
        progress: hears how far the build is, from 0 to 1, about.
    """

    again: bool = False
    named: bool = False
    made_s: float | None = None
    hurried: bool = False
    progress: Callable[[float], object] = lambda done: None


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


def goal_of(weights: Weights, config: Config) -> int | None:
    """Number of the kind that is asked for (`ranking.goal`); None where it is none, or the model has no goals."""
    if config.ranking.goal is None or not weights.model.shape.by_kind:
        return None
    return list(config.events.kinds).index(config.ranking.goal)


def build_generation(
    weights: Weights,
    version: int,
    metrics: Mapping[str, float],
    frozen: Frozen,
    config: Config,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[float], object] = lambda done: None,
) -> Generation:
    """Computes all embeddings and a new index. Takes seconds to minutes; meant for a thread of its own.

    Args:
        progress: hears how far the build is, from 0 to 1, about.

    Raises:
        WeightsError: the embeddings are not finite.
        BuildStoppedError: `stopped`, asked now and then, returned True.
    """
    embedder = Embedder(weights.model, weights.vocabulary, config.inference, frozen.user_rows, frozen.item_rows)
    pieces = embedder.build_pieces(len(frozen.item_ids), len(frozen.users))
    embedding = counted(stopped, pieces, lambda done: progress(_EMBEDDING_SHARE * done))
    embedder.build(frozen.graph, frozen.item_ids, frozen.content, frozen.users, embedding)
    if stopped():
        raise BuildStoppedError(f"the build of model version {version} was stopped")
    items = embedder.items.numpy()
    if not np.isfinite(items[frozen.live]).all():
        raise WeightsError("the model gives embeddings that are not finite on the live graph")
    queries = _some_queries(weights, embedder, frozen)
    found = frozen.available[embedder.known.numpy()[frozen.available]]
    indexing = counted(
        stopped, build_pieces(len(found)), lambda done: progress(_EMBEDDING_SHARE + (1 - _EMBEDDING_SHARE) * done)
    )
    threads = threads_beside_one(config.serving.list_threads)
    index = LiveIndex.build(found, items[found], config.index, indexing, queries, threads)
    model = weights.model.served_in(config.inference.precision)
    sessions = SessionCache(model.sequence, config.inference.sessions, config.state.history)
    cache = QueryCache(sessions, config.inference.queries, model.sequence.reach, model.shape.dim)
    ranker = RankerForward(model)
    return Generation(version, metrics, model, embedder, cache, ranker, index, goal_of(weights, config))


@torch.inference_mode()
def _some_queries(weights: Weights, embedder: Embedder, frozen: Frozen) -> NDArray[np.float32]:
    """[Q, d] what some of the users would be searched for with."""
    sequence = weights.model.sequence
    if len(frozen.users) == 0:
        return np.zeros((0, embedder.items.shape[1]), np.float32)
    users = frozen.users[torch.linspace(0, len(frozen.users) - 1, min(_QUERIES, len(frozen.users))).long()]
    history = frozen.graph.user_items.latest(users, sequence.reach + 1)
    queries: NDArray[np.float32] = sequence.latest(embedder.items, history)[history.mask.any(1)].numpy()
    return queries[np.isfinite(queries).all(axis=1)]
