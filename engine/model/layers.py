"""Aggregation of ring neighbors, and causal attention over a session.

Shapes: B rows, n neighbors of each, M rows in a table, L events in a session, d width, H heads, e edge features.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import TransformerConv

from engine.state.ring import Neighbors

_HOUR_MS = 3_600_000.0
NO_ATTENTION = -1e9  # finite, so that a row without any neighbor gets zeros rather than NaN

Aggregation = Literal["attention", "mean", "sum"]


class RingAggregation(Protocol):
    """What the graph encoder asks of a layer: a vector per target from its neighbors and the edges to them."""

    def gather(self, target: Tensor, table: Tensor, index: Tensor, edge: Tensor) -> Tensor:
        """[B, d] from `target` [B, d], `table[index]` ([M, d], [B, n], -1 where none) and `edge` [B, n, e]."""


class EdgeFeatures(nn.Module):
    """Turns kind, age and weight of each edge into a vector.

    Age counts from the row's own newest edge, so that an embedding changes when an edge comes and not as time passes.
    """

    def __init__(self, kinds: int, dim: int) -> None:
        super().__init__()
        self.kind = nn.Embedding(kinds, dim)
        self.scale = nn.Linear(2, dim, bias=False)

    def forward(self, edges: Neighbors) -> Tensor:
        """Returns [B, n, e]; what stands where there is no edge is for the caller to mask."""
        newest = edges.time_ms.amax(dim=1, keepdim=True)
        age = torch.log1p((newest - edges.time_ms).clamp_min(0).float() / _HOUR_MS) / 8.0
        weight = torch.log1p(edges.weight.clamp_min(0)) / 2.0
        kind = edges.kind.clamp(0, self.kind.num_embeddings - 1)
        return self.kind(kind) + self.scale(torch.stack([age, weight], dim=-1))


class RingAttention(TransformerConv):
    """PyG's graph attention, with a second forward over dense ring gathers.

    The operator and its parameters are TransformerConv's (Shi et al., IJCAI 2021). `gather` computes the same from
    neighbors that already lie in [B, n] order: no edge list, no scatter, shapes known beforehand.
    """

    def __init__(self, dim: int, heads: int, edge_dim: int) -> None:
        super().__init__(dim, dim // heads, heads=heads, edge_dim=edge_dim)
        _remove_generated(type(self))

    def gather(self, target: Tensor, table: Tensor, index: Tensor, edge: Tensor) -> Tensor:
        """Attends from `target` [B, d] to `table[index]` ([M, d], [B, n], -1 where none) with `edge` [B, n, e].

        Returns:
            [B, d].
        """
        (rows, n), heads, width = index.shape, self.heads, self.out_channels
        mask = index >= 0
        at = index.clamp_min(0)
        if len(table) < rows * n:  # project each table row once, then gather
            key, value = self.lin_key(table)[at], self.lin_value(table)[at]
        else:
            source = table[at]
            key, value = self.lin_key(source), self.lin_value(source)
        features = self.lin_edge(edge).view(rows, n, heads, width)
        key = key.view(rows, n, heads, width) + features
        value = value.view(rows, n, heads, width) + features
        query = self.lin_query(target).view(rows, 1, heads, width)
        score = (query * key).sum(-1) / math.sqrt(width)  # [B, n, H]
        attention = score.masked_fill(~mask[..., None], NO_ATTENTION).softmax(dim=1) * mask[..., None]
        return (attention[..., None] * value).sum(1).reshape(rows, heads * width) + self.lin_skip(target)


def _remove_generated(of: type) -> None:
    """Deletes the file that PyG writes to the temporary folder for a class: each process left one."""
    generated = sys.modules.get(f"{of.__module__}_{of.__name__}_propagate")
    if generated is not None and generated.__file__ is not None:
        Path(generated.__file__).unlink(missing_ok=True)


class RingPooling(nn.Module):
    """Mean or sum of the same messages: what is left of `RingAttention` where every neighbor counts alike.

    Args:
        mean: divides by the number of edges; a sum also tells how many there are.
    """

    def __init__(self, dim: int, edge_dim: int, mean: bool) -> None:
        super().__init__()
        self.mean = mean
        self.lin_value = nn.Linear(dim, dim)
        self.lin_edge = nn.Linear(edge_dim, dim, bias=False)
        self.lin_skip = nn.Linear(dim, dim)

    def gather(self, target: Tensor, table: Tensor, index: Tensor, edge: Tensor) -> Tensor:
        """As `RingAttention.gather`."""
        present = (index >= 0)[..., None]  # [B, n, 1]
        at = index.clamp_min(0)
        # Project each table row once where there are fewer of them than edges.
        value = self.lin_value(table)[at] if len(table) < index.numel() else self.lin_value(table[at])
        total = ((value + self.lin_edge(edge)) * present).sum(1)  # [B, d]
        if self.mean:
            total = total / present.sum(1).clamp_min(1)
        return total + self.lin_skip(target)


class Dense(nn.Linear):
    """A linear layer that can compute some of its outputs alone."""

    def part(self, x: Tensor, first: int, end: int) -> Tensor:
        """[..., end - first] outputs `first` to `end` of x [..., n]."""
        return F.linear(x, self.weight[first:end], self.bias[first:end])


class SessionAttention(nn.Module):
    """Multi-head self-attention; what position i sees of the others is the bias's to say."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Dense(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        # At the start a position gets the mean of what it sees: training begins from "more of the same".
        with torch.no_grad():
            self.qkv.weight[2 * dim :].copy_(torch.eye(dim))
            self.out.weight.copy_(torch.eye(dim))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x [B, L, d], bias [B, H, L, L] added to the scores; returns [B, L, d]."""
        rows, length, dim = x.shape
        query, key, value = self.qkv(x).view(rows, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)  # [B, H, L, d/H]
        return self.out(mixed.transpose(1, 2).reshape(rows, length, dim))

    def keys_values(self, x: Tensor) -> Tensor:
        """[B, L, 2 * d] the keys and values of x [B, L, d], to be kept for `attend`."""
        dim = x.shape[-1]
        return self.qkv.part(x, dim, 3 * dim)

    def attend(self, x: Tensor, kept: Tensor, bias: Tensor) -> Tensor:
        """`forward` of the newest n of L positions: x [B, n, d], kept [B, L, 2 * d], bias [B, H, n, L]."""
        rows, new, dim = x.shape
        query = self.qkv.part(x, 0, dim)
        query = query.view(rows, new, self.heads, dim // self.heads).transpose(1, 2)  # [B, H, n, d/H]
        key, value = kept.view(rows, -1, 2, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out(mixed.transpose(1, 2).reshape(rows, new, dim))


class SessionBlock(nn.Module):
    """Pre-norm attention and feed-forward.

    Args:
        expansion: width of the feed-forward's hidden layer, in d.
        gated: whether each residual branch is scaled by a sigmoid gate of its input (LiGR, Borisyuk et al., 2025).
    """

    def __init__(self, dim: int, heads: int, dropout: float, expansion: int = 2, gated: bool = False) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = SessionAttention(dim, heads)
        self.norm_forward = nn.LayerNorm(dim)
        self.forward_in = nn.Linear(dim, expansion * dim)
        self.forward_out = nn.Linear(expansion * dim, dim)
        with torch.no_grad():
            self.forward_out.weight.mul_(0.1)
        self.gate_attention = nn.Linear(dim, dim) if gated else None
        self.gate_forward = nn.Linear(dim, dim) if gated else None
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        normed = self.norm_attention(x)  # [B, L, d]
        return self._mixed(x, normed, self.attention(normed, bias))

    def keys_values(self, x: Tensor) -> Tensor:
        """As `SessionAttention.keys_values`, of what the attention sees of x."""
        return self.attention.keys_values(self.norm_attention(x))

    def attend(self, x: Tensor, kept: Tensor, bias: Tensor) -> Tensor:
        """`forward` of the newest positions; arguments as in `SessionAttention.attend`."""
        normed = self.norm_attention(x)
        return self._mixed(x, normed, self.attention.attend(normed, kept, bias))

    def _mixed(self, x: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
        x = x + self._gated(self.drop(attended), normed, self.gate_attention)
        normed = self.norm_forward(x)
        hidden = F.gelu(self.forward_in(normed))  # [B, L, expansion * d]
        return x + self._gated(self.drop(self.forward_out(hidden)), normed, self.gate_forward)

    @staticmethod
    def _gated(branch: Tensor, source: Tensor, gate: nn.Linear | None) -> Tensor:
        return branch if gate is None else branch * torch.sigmoid(gate(source))
