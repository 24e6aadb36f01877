"""The graph encoder's attention over rings, for the few rows that an event touches: products and compiled passes.

A neighbor's key is only ever multiplied with a query, so the query takes the key's projection upon itself, once per
target in place of once per neighbor: q . (K x + e) = (K^T q) . x + q . e. Values likewise are projected after their
weighted sum. What is left for each neighbor is two scalar products per head with its vector as it lies in the table,
and nothing needs to be kept beside the table. Edge features are few numbers (kind, age, weight) times fixed vectors, so
they too are weighted first and multiplied afterwards. The result is that of `GraphEncoder`, which training uses.

Shapes: B targets, n neighbors of each, M rows in a table, H heads, d width, w = d / H, F edge features.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.model.gnn import GraphEncoder
from engine.model.layers import EdgeFeatures, RingAttention
from engine.numeric.dense import floats
from engine.numeric.elementary import exp, gelu, log1p
from engine.state.kernels import compiled
from engine.state.ring import Neighbors

_HOUR_MS = 3_600_000.0
_SMALLEST_NORM = 1e-12  # as torch.nn.functional.normalize

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]


class GraphForward:
    """One encoder's layers, with all that does not depend on the rows multiplied out beforehand."""

    def __init__(self, encoder: GraphEncoder) -> None:
        of_user, from_users, from_next = encoder.user_from_items, encoder.item_from_users, encoder.item_from_next
        assert isinstance(of_user, RingAttention)
        assert isinstance(from_users, RingAttention)
        assert isinstance(from_next, RingAttention)
        self._heads, self._features = of_user.heads, encoder.edge.kind.num_embeddings + 2
        root = encoder.user_root.detach().double()
        ask, bias = _asking(of_user, encoder.edge)
        self._user_ask = floats(root @ ask + bias)[None]  # [1, H * (d + F)]: every user asks alike
        self._user_answer = floats(_answering(of_user, encoder.edge))
        self._user_skip = floats(root @ _weight(of_user.lin_skip) + _bias(of_user.lin_skip))
        asks = [_asking(layer, encoder.edge) for layer in (from_users, from_next)]
        skips = (from_users.lin_skip, from_next.lin_skip)
        self._item_ask = floats(torch.cat([*(one for one, _ in asks), _weight(skips[0]) + _weight(skips[1])], dim=1))
        self._item_bias = floats(torch.cat([*(one for _, one in asks), _bias(skips[0]) + _bias(skips[1])]))
        self._asked = asks[0][0].shape[1]  # columns of one of the two
        answers = [_answering(layer, encoder.edge) for layer in (from_users, from_next)]
        self._item_answer = floats(torch.cat(answers))
        self._answered = len(answers[0])
        self._norm = floats(encoder.norm_item.weight), floats(encoder.norm_item.bias), encoder.norm_item.eps
        self._mix, self._mix_bias = floats(_weight(encoder.mix)), floats(encoder.mix.bias)

    @classmethod
    def of(cls, encoder: GraphEncoder) -> GraphForward | None:
        """None where neighbors are aggregated otherwise than by attention."""
        return cls(encoder) if isinstance(encoder.user_from_items, RingAttention) else None

    def users(self, table: Tensor, edges: Neighbors) -> Tensor:
        """`GraphEncoder.users`: [B, d] from layer-0 items [M, d]."""
        sums = np.zeros((len(edges), self._answered), np.float32)
        _attend(self._user_ask, 0, table.numpy(), *_columns(edges), self._heads, self._features, sums, 0)
        made = sums @ self._user_answer
        _gelu_of(made, self._user_skip)
        return torch.from_numpy(made)

    def items(
        self, target: Tensor, users: Tensor, user_edges: Neighbors, items: Tensor, next_edges: Neighbors
    ) -> Tensor:
        """`GraphEncoder.items`: [B, d] normalised."""
        own = target.numpy()
        asked = own @ self._item_ask
        asked += self._item_bias
        sums = np.zeros((len(own), 2 * self._answered), np.float32)
        _attend(asked, 0, users.numpy(), *_columns(user_edges), self._heads, self._features, sums, 0)
        _attend(
            asked, self._asked, items.numpy(), *_columns(next_edges), self._heads, self._features, sums, self._answered
        )
        made = sums @ self._item_answer
        _residual(own, asked, 2 * self._asked, made, *self._norm)
        mixed = np.dot(made, self._mix)
        _normalise(own, self._mix_bias, mixed)
        return torch.from_numpy(mixed)


def _asking(layer: RingAttention, edges: EdgeFeatures) -> tuple[Tensor, Tensor]:
    """[d, H * (d + F)] and [H * (d + F)]: from a target, for each head, what its neighbors and their edges meet."""
    features, width = _edge_vectors(layer, edges), layer.out_channels
    query, bias = layer.lin_query.weight.detach().double(), _bias(layer.lin_query)
    key = layer.lin_key.weight.detach().double()
    columns, offsets = [], []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        # The bias of keys adds the same to every neighbor's score: the softmax does not see it.
        meets = torch.cat([key[part], features[:, part].T], dim=1) / math.sqrt(width)  # [w, d + F]
        columns.append(query[part].T @ meets)
        offsets.append(bias[part] @ meets)
    return torch.cat(columns, dim=1), torch.cat(offsets)


def _answering(layer: RingAttention, edges: EdgeFeatures) -> Tensor:
    """[H * (d + F + 1), d]: from the weighted sums of each head to what the layer adds up."""
    features, width = _edge_vectors(layer, edges), layer.out_channels
    value = torch.cat([_weight(layer.lin_value), features, _bias(layer.lin_value)[None]])  # [d + F + 1, d]
    blocks = []
    for head in range(layer.heads):
        block = torch.zeros_like(value)
        part = slice(head * width, (head + 1) * width)
        block[:, part] = value[:, part]
        blocks.append(block)
    return torch.cat(blocks)


def _edge_vectors(layer: RingAttention, edges: EdgeFeatures) -> Tensor:
    """[F, d] what one edge of each kind, of age 1 and of weight 1 adds to keys and values."""
    vectors = torch.cat([edges.kind.weight, edges.scale.weight.T]).detach().double()
    return vectors @ _weight(layer.lin_edge)


def _weight(layer: nn.Module) -> Tensor:
    """[inputs, outputs] of a linear layer."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.detach().double().T


def _bias(layer: nn.Module) -> Tensor:
    bias: Tensor = layer.bias  # type: ignore[assignment]
    return bias.detach().double()


def _columns(edges: Neighbors) -> tuple[Longs, Longs, Longs, Floats]:
    return edges.row.numpy(), edges.time_ms.numpy(), edges.kind.numpy(), edges.weight.numpy()


@compiled(
    "void(f4[:,::1], i8, f4[:,::1], i8[:,::1], i8[:,::1], i8[:,::1], f4[:,::1], i8, i8, f4[:,::1], i8)",
    any_order=True,
)
def _attend(
    ask: Floats,
    first: int,
    table: Floats,
    row: Longs,
    time_ms: Longs,
    kind: Longs,
    weight: Floats,
    heads: int,
    features: int,
    sums: Floats,
    into: int,
) -> None:
    """Adds up, for each of B targets and each head, its neighbors by their weights.

    Args:
        ask: [B, ...], or [1, ...] where all ask alike; from column `first` on it has H * (d + F) of `_asking`.
        table: [M, d]; `row` [B, n] points into it, -1 where there is no neighbor.
        features: F.
        sums: [B, ...] zeros; from column `into` on it gets H * (d + F + 1): vectors, edge features, weights.
    """
    count, n = row.shape
    d = table.shape[1]
    kinds = features - 2
    there = np.empty(n, np.int64)
    age = np.empty(n, np.float32)
    amount = np.empty(n, np.float32)
    share = np.empty(n, np.float32)
    for b in range(count):
        asked = ask[b if len(ask) > 1 else 0]
        newest = time_ms[b, 0]
        for j in range(1, n):
            newest = max(newest, time_ms[b, j])
        found = 0
        for j in range(n):
            if row[b, j] >= 0:
                there[found] = j
                age[found] = np.float32(max(newest - time_ms[b, j], 0)) / np.float32(_HOUR_MS)
                amount[found] = max(weight[b, j], np.float32(0.0))
                found += 1
        if found == 0:
            continue
        for at in range(found):
            age[at] = log1p(age[at]) / np.float32(8.0)
            amount[at] = log1p(amount[at]) / np.float32(2.0)
        for h in range(heads):
            meets = asked[first + h * (d + features) : first + (h + 1) * (d + features)]
            most = np.float32(-np.inf)
            for at in range(found):
                vector = table[row[b, there[at]]]
                score = np.float32(0.0)
                for i in range(d):
                    score += meets[i] * vector[i]
                score += meets[d + min(max(kind[b, there[at]], 0), kinds - 1)]
                score += meets[d + kinds] * age[at] + meets[d + kinds + 1] * amount[at]
                share[at] = score
                most = max(most, score)
            total = np.float32(0.0)
            for at in range(found):
                share[at] = exp(share[at] - most)
            for at in range(found):
                total += share[at]
            got = sums[b, into + h * (d + features + 1) : into + (h + 1) * (d + features + 1)]
            for at in range(found):
                part = share[at] / total
                vector = table[row[b, there[at]]]
                for i in range(d):
                    got[i] += part * vector[i]
                got[d + min(max(kind[b, there[at]], 0), kinds - 1)] += part
                got[d + kinds] += part * age[at]
                got[d + kinds + 1] += part * amount[at]
                got[d + features] += part


@compiled("void(f4[:,::1], f4[::1])")
def _gelu_of(made: Floats, skip: Floats) -> None:
    """Turns each row of `made` [B, d] into gelu(row + skip)."""
    for b in range(made.shape[0]):
        for i in range(made.shape[1]):
            made[b, i] = gelu(made[b, i] + skip[i])


@compiled("void(f4[:,::1], f4[:,::1], i8, f4[:,::1], f4[::1], f4[::1], f8)", any_order=True)
def _residual(own: Floats, asked: Floats, skip: int, made: Floats, gain: Floats, bias: Floats, eps: float) -> None:
    """Turns each row of `made` [B, d] into layer_norm(own + gelu(row + its skip)).

    Args:
        skip: column of `asked` at which the skips begin.
    """
    count, d = made.shape
    for b in range(count):
        mean = np.float32(0.0)
        for i in range(d):
            made[b, i] = own[b, i] + gelu(made[b, i] + asked[b, skip + i])
        for i in range(d):
            mean += made[b, i]
        mean /= d
        spread = np.float32(0.0)
        for i in range(d):
            made[b, i] -= mean
            spread += made[b, i] * made[b, i]
        scale = np.float32(1.0 / math.sqrt(spread / d + eps))
        for i in range(d):
            made[b, i] = made[b, i] * scale * gain[i] + bias[i]


@compiled("void(f4[:,::1], f4[::1], f4[:,::1])", any_order=True)
def _normalise(own: Floats, bias: Floats, mixed: Floats) -> None:
    """Turns each row of `mixed` [B, d] into own + row + bias, of length 1."""
    count, d = mixed.shape
    for b in range(count):
        square = np.float32(0.0)
        for i in range(d):
            mixed[b, i] += own[b, i] + bias[i]
            square += mixed[b, i] * mixed[b, i]
        length = np.float32(max(math.sqrt(square), _SMALLEST_NORM))
        for i in range(d):
            mixed[b, i] /= length
