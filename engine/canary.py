"""Tries a new generation on what some users did lately, before it serves, and refuses one that would do harm.

What needs no live state is checked aside, on the copy that the generation was built from (`check_vectors`). Then both
models, the serving one and the new one, are asked for the newest event of each user from the events before it, a few
users between two steps of the engine (`Trial`). The state knows that event already, which helps both alike: only the
ratio of their hits means something. Where no model serves yet, the new one is compared with the lists of popularity:
untrained weights would pass every other check and be worse than that.

Shapes: U users tried, B of them at a time, d width.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import Config
from engine.generation import Frozen, Generation
from engine.model.weights import WeightsError
from engine.ranking.asked import Asked, Filter
from engine.ranking.lists import make_lists
from engine.ranking.moment import Now
from engine.ranking.popular import by_popularity
from engine.ranking.query import Query
from engine.state.ring import Neighbors
from engine.state.state import State

_log = logging.getLogger(__name__)

K = 20
_SAMPLE = 10  # users looked at for each that is tried, to find the recent ones among them
_NORM_TOLERANCE = 1e-3
_ALIKE = 0.9999  # mean cosine above which vectors tell nothing apart; before any training it may be 0.999
_FEW = 8  # vectors below which that may be chance
# With fewer hits of the serving model, or of both a first model and popularity, a ratio of them may be chance. Then the
# new model is taken: its trainer has judged it on more events, and a shop with few would never get a model otherwise.
_MIN_HITS = 20
_PIECE = 4  # users tried between two steps: a few ms of the engine's thread
_SEED = 20_240


class Refused(WeightsError):
    """A model that fits, and that must not serve; the message says what it did and what is asked for."""


def recent_users(frozen: Frozen, count: int) -> Tensor:
    """[U] int64 rows of up to `count` users with two events or more, those with the newest events of a sample."""
    chance = torch.Generator().manual_seed(_SEED)
    some = frozen.users[torch.randperm(len(frozen.users), generator=chance)[: _SAMPLE * count]]
    last = frozen.graph.user_items.latest(some, 2)
    order = last.time_ms[:, -1].argsort(descending=True, stable=True)
    return some[order[last.mask.all(dim=1)[order]]][:count]


@torch.inference_mode()
def check_vectors(generation: Generation, frozen: Frozen, users: Tensor) -> None:
    """Looks at item embeddings and at the encoded sessions of `users` [U]; for the thread that built them.

    Raises:
        Refused: item vectors that are not of length 1, sessions that are not finite, or either of them all alike.
    """
    items = generation.embedder.items
    live = torch.from_numpy(frozen.live)
    if len(live):
        off = max(float((items[part].norm(dim=-1) - 1).abs().max()) for part in live.split(4096))
        if off > _NORM_TOLERANCE:
            raise Refused(f"item embeddings must have length 1, got one that is off by {off:.3g}")
    if len(users) == 0:
        return
    history = frozen.graph.user_items.latest(users).last(generation.model.shape.window)
    sessions = generation.model.sequence(items, history, generation.goal)[:, -1]
    if not bool(torch.isfinite(sessions).all()):
        raise Refused("the sessions of recent users are encoded to values that are not finite")
    # One of each last item: users with the same past have the same vector in a good model, too.
    last, first = _distinct(history.row[:, -1])
    for what, vectors in (("item embeddings", items[last]), ("encoded sessions", sessions[first])):
        alike = _mean_cosine(vectors)
        if len(vectors) >= _FEW and alike > _ALIKE:
            raise Refused(f"{what} of recent users must differ: mean cosine must be <= {_ALIKE}, got {alike:.5f}")


class Trial:
    """Lists of a new generation beside those that are served now, for the same pasts of the same users.

    Args:
        users: [U] int64.

    Attributes:
        tried: users with at least two events.
        hits, serving_hits: of them, those whose newest item is among the K best of the new generation, and among those
            of the serving one, or of popularity where no model serves yet.
        first: no model serves yet.
        overlap: sum over them of the share of items that both lists have.
    """

    def __init__(self, config: Config, generation: Generation, users: Tensor) -> None:
        self._config = config
        self._generation = generation
        self._pieces = list(users.split(_PIECE)) if len(users) else []
        self._asked: _Question | None = None  # answered by the new generation and not yet by the serving one
        self.tried = self.hits = self.serving_hits = 0
        self.first = False
        self.overlap = 0.0

    def step(self, state: State, serving: Generation | None) -> bool:
        """Has one of the two make a few lists, in the engine's thread; True once all are made."""
        self.first = serving is None
        if self._asked is None:
            self._asked = self._ask(self._pieces.pop(), state) if self._pieces else None
        else:
            self._compare(self._asked, self._lists(self._asked.asked, state, serving))
            self._asked = None
        return not self._pieces and self._asked is None

    def check(self) -> None:
        """Raises Refused where the new model is too far below what serves now, or too far from the serving model."""
        canary = self._config.canary
        if self.first:
            self._check_first(canary.min_popularity_share)
            return
        if self.serving_hits >= _MIN_HITS and self.hits < canary.min_hit_rate_share * self.serving_hits:
            raise Refused(
                f"hit_rate@{K} on the newest events of {self.tried} recent users must be at least"
                f" {canary.min_hit_rate_share:g} (canary.min_hit_rate_share) of the serving model's"
                f" {self.serving_hits / self.tried:.3f}, got {self.hits / self.tried:.3f}"
            )
        overlap = self.overlap / self.tried if self.tried else 1.0
        if overlap < canary.min_overlap:
            raise Refused(
                f"lists of {self.tried} recent users must share at least {canary.min_overlap:g} (canary.min_overlap)"
                f" of their items with the serving model's, got {overlap:.3f}"
            )

    def _check_first(self, share: float) -> None:
        if share == 0 or self.tried == 0:
            return
        if max(self.hits, self.serving_hits) < _MIN_HITS:
            _log.info(
                "the first model is taken without a comparison: on the newest events of %d recent users it has %d hits"
                " and popularity %d, and one of them must have %d for a verdict",
                self.tried, self.hits, self.serving_hits, _MIN_HITS,
            )  # fmt: skip
        elif self.hits <= share * self.serving_hits:
            raise Refused(
                f"hit_rate@{K} of a first model on the newest events of {self.tried} recent users must be above"
                f" {share:g} (canary.min_popularity_share) of popularity's {self.serving_hits / self.tried:.3f},"
                f" got {self.hits / self.tried:.3f}"
            )

    def _ask(self, users: Tensor, state: State) -> _Question | None:
        history = state.graph.user_items.latest(users)
        there = history.mask[:, -2:].all(dim=1)  # some may be gone since
        if not bool(there.any()):
            return None
        history = history.select(there)
        before = Neighbors(*(column[:, :-1] for column in history.columns()))
        query = Query("", "", min(K, self._config.ranking.max_k))
        count = len(before)
        asked = Asked([query] * count, users[there].numpy(), before, [Filter()] * count)
        ids = state.items.ids()
        newest = [ids[row] for row in history.row[:, -1].tolist()]
        return _Question(asked, newest, self._lists(asked, state, self._generation))

    def _lists(self, asked: Asked, state: State, generation: Generation | None) -> list[set[str]]:
        moment, config, ids = Now(state, int(time.time() * 1000)), self._config.ranking, state.items.ids()
        if generation is None:
            pages = [scored.page for scored in by_popularity(asked, moment, config)]
        else:
            pages = list(make_lists(asked, moment, generation, config).pages)
        return [{ids[row] for row in page.row.tolist()} for page in pages]

    def _compare(self, asked: _Question, serving: list[set[str]]) -> None:
        self.tried += len(serving)
        for item, ours, theirs in zip(asked.newest, asked.lists, serving, strict=True):
            self.hits += item in ours
            self.serving_hits += item in theirs
            self.overlap += len(ours & theirs) / max(1, len(ours), len(theirs))


@dataclass(frozen=True)
class _Question:
    """What is asked for users [B], the item that came then, and the new generation's lists."""

    asked: Asked
    newest: list[str]
    lists: list[set[str]]


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each of `rows` once, and where it stands."""
    distinct, place = rows.unique(return_inverse=True)
    first = torch.zeros(len(distinct), dtype=torch.int64).scatter_(0, place, torch.arange(len(rows)))
    return distinct, first


def _mean_cosine(vectors: Tensor) -> float:
    """Over all pairs of different vectors [n, d] of length 1; 1 where there are no two."""
    n = len(vectors)
    return float((vectors.sum(0).square().sum() - n) / (n * (n - 1))) if n > 1 else 1.0
