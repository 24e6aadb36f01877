"""Models for `benchmarks.swap`: untrained and honest ones, whose scores say which version they are, and bad ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

from engine.config import EventsConfig, StateConfig
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights, encode_weights
from trainer.push import WeightsFile, await_serving, push

_APART = 1000.0  # between the scores of two versions
_TIMEOUT_S = 300.0
_WITHIN = 300.0  # around its version's, a score lies; the session's logits are at most 100


def honest(items: Sequence[str], version: int) -> Weights:
    """A model that ranks what is like the session's end: enough where users have an item twice in a row.

    Each version has weights of its own, and all of its scores lie in a range that no other version's reach.
    """
    with torch.random.fork_rng():
        torch.manual_seed(version)
        model = Recommender(
            ModelShape(
                vocabulary=len(items),
                content_dim=StateConfig().content_dim,
                kinds=len(EventsConfig().kinds),
                blocks=1,
                window=32,
            )
        )
    with torch.no_grad():
        model.graph.identity.weight.mul_(200)  # each item is like nothing but itself
        model.ranker.score.weight.zero_()  # the session alone ranks
        model.ranker.score.bias.fill_(_APART * version)
    return Weights(model.eval().requires_grad_(False), items)


def push_honest(address: str, items: Sequence[str], version: int) -> None:
    push_and_wait(address, encode_weights(honest(items, version)), version)


def push_and_wait(address: str, data: bytes, version: int) -> None:
    """Pushes a model and waits until the engine serves it.

    Raises:
        PushError: it does not.
    """
    push(address, WeightsFile(data), version, _TIMEOUT_S)
    await_serving(address, version, _TIMEOUT_S, threading.Event())


def is_of(version: int, score: float) -> bool:
    """Whether a score can be one of that version's."""
    return abs(score - _APART * version) < _WITHIN


def bad(items: Sequence[str], version: int) -> dict[str, bytes]:
    """Weights files that must be refused, by what is wrong with them."""
    broken, collapsed, misled = (honest(items, version) for _ in range(3))
    with torch.no_grad():
        broken.model.sequence.out.weight[0, 0] = float("nan")
        graph = collapsed.model.graph
        graph.content.weight.zero_()  # every item has the same embedding
        graph.identity.weight.zero_()
        graph.mix.weight.zero_()
        misled.model.ranker.session.fill_(-1.0)  # the least likely first
    named = {"values that are not finite": broken, "embeddings all alike": collapsed, "a far lower hit rate": misled}
    return {name: encode_weights(weights) for name, weights in named.items()}
