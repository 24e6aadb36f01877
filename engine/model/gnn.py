"""Two layers over the temporal graph: items -> users, then users and next items -> items.

The layers run over dense gathers of the rings. A ring has a fixed number of slots, so the neighbors of B rows are a
[B, n] block without an edge list, and a handful of rows costs a handful of rows.

Shapes: N items, U users, B rows, n neighbors, F content features, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.layers import Aggregation, EdgeFeatures, RingAggregation, RingAttention, RingPooling
from engine.state.ring import Neighbors

_EDGE_DIM = 16
USER_NEIGHBORS = 32  # newest items that a user's vector is made of


class GraphEncoder(nn.Module):
    """Item embeddings from content, learned ids and the live graph.

    Attributes:
        linked: whether the graph is used. Where its layers earn nothing, each item is embedded as if without neighbors.
    """

    def __init__(
        self,
        vocabulary: int,
        content_dim: int,
        kinds: int,
        dim: int,
        heads: int,
        dropout: float,
        *,
        aggregation: Aggregation = "attention",
        linked: bool = True,
    ) -> None:
        super().__init__()
        self.linked = linked
        self.content = nn.Linear(content_dim, dim)
        # Row 0 stands for every item that training has not seen.
        self.identity = nn.Embedding(vocabulary + 1, dim, padding_idx=0)
        # Small, so that at first items of the same content are alike: what is learned of one then holds for all.
        nn.init.normal_(self.identity.weight, std=0.005)
        with torch.no_grad():
            self.identity.weight[0].zero_()
        self.norm = nn.LayerNorm(dim)
        self.edge = EdgeFeatures(kinds, _EDGE_DIM)
        self.user_root = nn.Parameter(torch.zeros(dim))
        self.user_from_items = _aggregation(aggregation, dim, heads)
        self.item_from_users = _aggregation(aggregation, dim, heads)
        self.item_from_next = _aggregation(aggregation, dim, heads)
        self.drop = nn.Dropout(dropout)
        self.norm_item = nn.LayerNorm(dim)
        self.mix = nn.Linear(dim, dim)

    def base(self, word: Tensor, content: Tensor) -> Tensor:
        """Layer 0: [B, d] from vocabulary numbers [B] (0: unseen in training) and content [B, F]."""
        return self.norm(self.content(content) + self.identity(word))

    def users(self, items: Tensor, edges: Neighbors) -> Tensor:
        """Layer 1: [B, d] user vectors from layer-0 `items` [M, d]; `edges.row` [B, n] points into them."""
        root = self.user_root.expand(len(edges), -1)
        return F.gelu(self.user_from_items.gather(root, items, edges.row, self.edge(edges)))

    def items(
        self, target: Tensor, users: Tensor, user_edges: Neighbors, items: Tensor, next_edges: Neighbors
    ) -> Tensor:
        """Layer 2: [B, d] normalised embeddings.

        Args:
            target: [B, d] layer 0 of the rows themselves.
            users: [M, d] layer 1; `user_edges.row` [B, n] points into it.
            items: [M', d] layer 0; `next_edges.row` [B, n] points into it.
        """
        from_users = self.item_from_users.gather(target, users, user_edges.row, self.edge(user_edges))
        from_next = self.item_from_next.gather(target, items, next_edges.row, self.edge(next_edges))
        x = target + self.drop(F.gelu(from_users + from_next))
        return F.normalize(target + self.mix(self.norm_item(x)), dim=-1)

    def knows(self, word: Tensor, content: Tensor) -> Tensor:
        """[B] whether embeddings tell items apart; of those without id and content only the graph may know anything."""
        return (word > 0) | content.any(1) | self.linked


def _aggregation(how: Aggregation, dim: int, heads: int) -> RingAggregation:
    if how == "attention":
        return RingAttention(dim, heads, _EDGE_DIM)
    return RingPooling(dim, _EDGE_DIM, mean=how == "mean")
