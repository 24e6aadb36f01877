"""The weights that a training starts from: new ones, with what a model before has learned where it fits.

Shapes: N items, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights
from trainer.config import Recipe
from trainer.replay import TrainingData

_MOSTLY_KNOWN = 0.5  # share of the learned ids that must have been learned before, for a short training


def start_weights(data: TrainingData, end: int, config: Recipe, previous: Weights | None) -> Weights:
    """A new model for the items of events 0..end-1, with what `previous` has learned where it fits."""
    torch.manual_seed(config.seed)
    count = torch.bincount(data.log.item[:end], minlength=data.items)
    order = count.sort(descending=True, stable=True).indices[: config.max_vocabulary]
    known = order[count[order] >= config.min_count]
    vocabulary = [data.item_ids[row] for row in known.tolist()]
    linked = previous is not None and previous.model.graph.linked
    shape = _shape(data, config, len(vocabulary), linked)
    model = Recommender(shape)
    if not bool(data.content.any()):
        # Ids alone must tell items apart from the first step on; what all of them share would drown them.
        torch.nn.init.normal_(model.graph.identity.weight[1:], std=0.02)
        torch.nn.init.zeros_(model.graph.content.bias)
    if previous is not None and _fits(previous, shape):
        _inherit(model, vocabulary, previous)
    return Weights(model, vocabulary)


def with_graph(model: Recommender) -> Recommender:
    """A copy that is to learn from items' neighbors, too."""
    linked = Recommender(model.shape.model_copy(update={"linked": True}))
    linked.load_state_dict(model.state_dict())
    return linked


def check_shape(shape: ModelShape, data: TrainingData, config: Recipe) -> None:
    """Raises ValueError where weights of this shape are none to start from: they would be left aside for new ones."""
    want = _shape(data, config, shape.vocabulary, shape.linked)
    name = _misfit(shape, want)
    if name is not None:
        value, got = getattr(want, name), getattr(shape, name)
        raise ValueError(f"the weights to start from must have {name} {value}, got {got}")


def _shape(data: TrainingData, config: Recipe, vocabulary: int, linked: bool) -> ModelShape:
    return ModelShape(
        vocabulary=vocabulary,
        content_dim=data.content.shape[1],
        kinds=len(data.kind_weight),
        dim=config.dim,
        heads=config.heads,
        blocks=config.blocks,
        window=config.window,
        dropout=config.dropout,
        expansion=config.expansion,
        gated=config.gated,
        relative_time=config.relative_time,
        aggregation=config.aggregation,
        linked=linked,
        local_heads=config.local_heads,
        local_window=config.local_window,
        by_kind=config.by_kind,
    )


def words(item_ids: Sequence[str], vocabulary: Sequence[str]) -> Tensor:
    """[N] int64 vocabulary number of each item, 0 where it has none."""
    number = {item_id: at for at, item_id in enumerate(vocabulary, start=1)}
    return torch.tensor([number.get(item_id, 0) for item_id in item_ids], dtype=torch.int64)


def _fits(previous: Weights, shape: ModelShape) -> bool:
    """Whether a model of `shape` can start from `previous`: nothing but the number of ids may differ."""
    return _misfit(previous.model.shape, shape) is None


def _misfit(got: ModelShape, want: ModelShape) -> str | None:
    """The first field but the number of ids in which two shapes differ, None where there is none."""
    names = want.model_dump(exclude={"vocabulary"})
    return next((name for name in names if getattr(got, name) != getattr(want, name)), None)


def continues(weights: Weights, previous: Weights) -> bool:
    """Whether little is left to learn: ids that are new to a model need the whole schedule."""
    known = (words(weights.vocabulary, previous.vocabulary) > 0).float()
    return _fits(previous, weights.model.shape) and len(known) > 0 and known.mean().item() >= _MOSTLY_KNOWN


def _inherit(model: Recommender, vocabulary: Sequence[str], previous: Weights) -> None:
    """Copies every tensor; learned ids move to their new numbers, and those that are new stay as they begin."""
    tensors = dict(previous.model.state_dict())
    fresh = model.state_dict()["graph.identity.weight"].clone()
    old = words(vocabulary, previous.vocabulary)
    at = (old > 0).nonzero().squeeze(1)
    fresh[at + 1] = tensors["graph.identity.weight"][old[at]]
    tensors["graph.identity.weight"] = fresh
    tensors["habit"] = model.habit  # not learned, but counted anew
    model.load_state_dict(tensors)
