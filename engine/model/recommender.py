"""The whole model: graph encoder, sequence encoder, ranker, and the shape that they are built from.

Shapes: N items, B rows, d width.
"""

from __future__ import annotations

import copy

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from engine.config import Precision
from engine.features.table import HABITS
from engine.model.gnn import GraphEncoder
from engine.model.layers import Aggregation
from engine.model.precision import in_precision
from engine.model.ranker import Ranker
from engine.model.sequence import SequenceEncoder


def check_heads(dim: int, heads: int, local_heads: int) -> None:
    """Raises ValueError where a width can't be shared by so many heads, or so many of them can't be local."""
    if heads < 1 or dim % heads:
        raise ValueError(f"dim must be a multiple of heads, got {dim} and {heads}")
    if not 0 <= local_heads <= heads:
        raise ValueError(f"local_heads must be in 0..{heads} (heads), got {local_heads}")


class ModelShape(BaseModel):
    """What a weights file says of itself, so that an engine can build the model that fits it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(ge=0, le=100_000_000, description="items with a learned id")
    content_dim: int = Field(ge=1, le=65_536)
    kinds: int = Field(ge=1, le=1024)
    dim: int = Field(64, ge=8, le=1024)
    heads: int = Field(2, ge=1, le=64)
    blocks: int = Field(2, ge=1, le=64)
    window: int = Field(64, ge=2, le=4096, description="latest events that a position sees in each block")
    dropout: float = Field(0.1, ge=0, lt=1)
    expansion: int = Field(2, ge=1, le=16, description="width of the feed-forward's hidden layer, in dim")
    gated: bool = Field(False, description="residual branches scaled by a gate")
    relative_time: bool = Field(True, description="attention knows the time between events, and their sessions")
    aggregation: Aggregation = Field("attention", description="of an item's and a user's neighbors in the graph")
    linked: bool = Field(True, description="items have their neighbors in the graph; false: none has any")
    local_heads: int = Field(0, ge=0, le=64, description="of the session's heads, those that see local_window events")
    local_window: int = Field(8, ge=1, le=4096, description="latest events that a local head sees, its own included")
    by_kind: bool = Field(False, description="queries for the next item by an event of one kind, beside that of any")

    @model_validator(mode="after")
    def _fits(self) -> ModelShape:
        check_heads(self.dim, self.heads, self.local_heads)
        return self


class Recommender(nn.Module):
    """Item embeddings out of the graph, query vectors out of the session, in one space: cosine ranks.

    Attributes:
        habit: [V + 1, HABITS] by vocabulary number what training saw of an item: how often whoever had it has it again
            in a later session, how often in the same, and after how long; row 0 is of all other items together.
    """

    habit: Tensor

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.graph = GraphEncoder(
            shape.vocabulary,
            shape.content_dim,
            shape.kinds,
            shape.dim,
            shape.heads,
            shape.dropout,
            aggregation=shape.aggregation,
            linked=shape.linked,
        )
        self.sequence = SequenceEncoder(
            shape.dim,
            shape.heads,
            shape.blocks,
            shape.window,
            shape.kinds,
            shape.dropout,
            expansion=shape.expansion,
            gated=shape.gated,
            relative_time=shape.relative_time,
            local_heads=shape.local_heads,
            local_window=shape.local_window,
            by_kind=shape.by_kind,
        )
        self.ranker = Ranker()
        self.register_buffer("habit", torch.zeros(shape.vocabulary + 1, HABITS))
        self.log_temperature = nn.Parameter(torch.tensor(16.0).log())

    def logits(self, cosine: Tensor) -> Tensor:
        """Scores for a softmax from cosines of any shape."""
        return cosine * self.log_temperature.exp().clamp_max(100.0)

    def served_in(self, precision: Precision) -> Recommender:
        """The same model, its session encoder multiplying in `precision`, for inference alone; all else is shared."""
        if precision == "float32":
            return self
        served = copy.copy(self)
        served._modules = {**self._modules, "sequence": in_precision(self.sequence, precision)}
        return served
