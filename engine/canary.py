"""Tries a new generation on what some users did lately, before it serves, and refuses one that would do harm.

What needs no live state is checked aside, on the copy that the generation was built from (`check_vectors`). Then the
new model, the serving one and the scorers that count are asked for the newest event of each user from the events before
it, a few users between two steps of the engine (`Trial`).

Shapes: U users tried, d width.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from engine.config import Config
from engine.contest import MIN_HITS, Contest, K, Maker, scorer_makers
from engine.generation import Frozen, Generation
from engine.model.weights import WeightsError
from engine.ranking.lists import make_lists
from engine.ranking.scorers import SCORERS
from engine.state.state import State

_log = logging.getLogger(__name__)

_NORM_TOLERANCE = 1e-3
_ALIKE = 0.9999  # mean cosine above which vectors tell nothing apart; before any training it may be 0.999
_FEW = 8  # vectors below which that may be chance
_NEW, _SERVING = "the new model", "the serving model"


class Refused(WeightsError):
    """A model that fits, and that must not serve; the message says what it did and what is asked for."""


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
    """Lists of a new generation beside those of the serving one and of the scorers, for the same pasts of some users.

    Args:
        users: [U] int64.
        serving: None before the first model.

    Attributes:
        contest: who hit what.
        overlap: sum over the users of the share of items that the lists of the new and the serving model share.
    """

    def __init__(self, config: Config, generation: Generation, users: Tensor, serving: Generation | None) -> None:
        self._config = config
        makers = {_NEW: _maker(generation)} | ({_SERVING: _maker(serving)} if serving else {}) | scorer_makers()
        self.contest = Contest(config.ranking, users, makers)
        self._is_first = serving is None
        self.overlap = 0.0

    def step(self, state: State) -> bool:
        """Has one of them make a few lists, in the engine's thread; True once all are made."""
        answered = {name: len(hit) for name, hit in self.contest.hit.items()}
        ended = self.contest.step(state)
        if not self._is_first and len(self.contest.hit[_SERVING]) > answered[_SERVING]:
            pairs = zip(self.contest.lists[_NEW], self.contest.lists[_SERVING], strict=True)
            self.overlap += sum(len(ours & theirs) / max(1, len(ours), len(theirs)) for ours, theirs in pairs)
        return ended

    def check(self) -> None:
        """Raises Refused where the new model is too far below the others, or too far from the serving model."""
        contest, canary = self.contest, self._config.canary
        tried = contest.tried
        if not tried:
            return
        best = max(SCORERS, key=contest.hits)
        hits = contest.hits(_NEW)
        if max(hits, contest.hits(best)) < MIN_HITS:
            _log.info(
                "the model is not compared with the scorers: on the newest events of %d recent users it has %d hits and"
                " %s %d, and one of them must have %d for a verdict", tried, hits, best, contest.hits(best), MIN_HITS,
            )  # fmt: skip
        elif contest.is_behind(_NEW, best, canary.min_scorer_share):
            raise Refused(
                f"hit_rate@{K} on the newest events of {tried} recent users must be at least"
                f" {canary.min_scorer_share:g} (canary.min_scorer_share) of that of {best},"
                f" {contest.hits(best) / tried:.3f}, got {hits / tried:.3f}"
            )
        if not self._is_first:
            self._check_beside_serving(hits, tried)

    def _check_beside_serving(self, hits: int, tried: int) -> None:
        canary, serving = self._config.canary, self.contest.hits(_SERVING)
        if serving >= MIN_HITS and hits < canary.min_hit_rate_share * serving:
            raise Refused(
                f"hit_rate@{K} on the newest events of {tried} recent users must be at least"
                f" {canary.min_hit_rate_share:g} (canary.min_hit_rate_share) of the serving model's"
                f" {serving / tried:.3f}, got {hits / tried:.3f}"
            )
        if self.overlap / tried < canary.min_overlap:
            raise Refused(
                f"lists of {tried} recent users must share at least {canary.min_overlap:g} (canary.min_overlap)"
                f" of their items with the serving model's, got {self.overlap / tried:.3f}"
            )


def _maker(generation: Generation) -> Maker:
    return lambda asked, moment, config: make_lists(asked, moment, generation, config).pages


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each of `rows` once, and where it stands."""
    distinct, place = rows.unique(return_inverse=True)
    first = torch.zeros(len(distinct), dtype=torch.int64).scatter_(0, place, torch.arange(len(rows)))
    return distinct, first


def _mean_cosine(vectors: Tensor) -> float:
    """Over all pairs of different vectors [n, d] of length 1; 1 where there are no two."""
    n = len(vectors)
    return float((vectors.sum(0).square().sum() - n) / (n * (n - 1))) if n > 1 else 1.0
