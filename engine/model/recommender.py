"""The whole model: graph encoder, sequence encoder, ranker, and the shape that they are built from.

Shapes: N items, B rows, d width.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from engine.model.gnn import GraphEncoder
from engine.model.layers import Aggregation
from engine.model.ranker import Ranker
from engine.model.sequence import SequenceEncoder


class ModelShape(BaseModel):
    """What a weights file says of itself, so that an engine can build the model that fits it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(ge=0, le=100_000_000, description="items with a learned id")
    content_dim: int = Field(ge=1, le=65_536)
    kinds: int = Field(ge=1, le=1024)
    dim: int = Field(64, ge=8, le=1024)
    heads: int = Field(2, ge=1, le=64)
    blocks: int = Field(2, ge=1, le=64)
    window: int = Field(64, ge=2, le=4096)
    dropout: float = Field(0.1, ge=0, lt=1)
    expansion: int = Field(2, ge=1, le=16, description="width of the feed-forward's hidden layer, in dim")
    gated: bool = Field(False, description="residual branches scaled by a gate")
    relative_time: bool = Field(True, description="attention knows the time between events, and their sessions")
    aggregation: Aggregation = Field("attention", description="of an item's and a user's neighbors in the graph")


class Recommender(nn.Module):
    """Item embeddings out of the graph, query vectors out of the session, in one space: cosine ranks."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        if shape.dim % shape.heads:
            raise ValueError(f"dim must be a multiple of heads, got {shape.dim} and {shape.heads}")
        self.shape = shape
        self.graph = GraphEncoder(
            shape.vocabulary,
            shape.content_dim,
            shape.kinds,
            shape.dim,
            shape.heads,
            shape.dropout,
            aggregation=shape.aggregation,
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
        )
        self.ranker = Ranker()
        self.log_temperature = nn.Parameter(torch.tensor(16.0).log())

    def logits(self, cosine: Tensor) -> Tensor:
        """Scores for a softmax from cosines of any shape."""
        return cosine * self.log_temperature.exp().clamp_max(100.0)
