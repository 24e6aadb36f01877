"""A small random model for tests: untrained, but every part of it real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights

CONTENT_DIM, KINDS = 16, 8


def small_weights(vocabulary: Sequence[str] = (), seed: int = 0, **shape: Any) -> Weights:
    """Weights of width 8 over `vocabulary`, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wanted = {"dim": 8, "heads": 2, "blocks": 1, "window": 4, "content_dim": CONTENT_DIM, "kinds": KINDS} | shape
        model = Recommender(ModelShape(vocabulary=len(vocabulary), **wanted))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
            model.graph.identity.weight[0] = 0
    return Weights(model.eval().requires_grad_(False), list(vocabulary))
