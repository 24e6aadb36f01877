"""All activations of the graph encoder at once, on another device than the one that the state lies on.

Rings are read where they lie, part by part; what is computed from them stays on the device until all is done.

Shapes: N items, U users, F content features, d width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.model.device import CPU
from engine.model.gnn import USER_NEIGHBORS, GraphEncoder
from engine.state.graph import LiveGraph
from engine.state.ring import Neighbors


@dataclass(frozen=True)
class Activations:
    """In a CPU's memory: `base` [N, d] layer 0 of the items, `users` [U, d] layer 1, `items` [N, d] layer 2."""

    base: Tensor
    users: Tensor
    items: Tensor


@torch.inference_mode()
def embed_all(
    encoder: GraphEncoder,
    device: torch.device,
    graph: LiveGraph,
    word: Tensor,
    content: Tensor,
    users: Tensor,
    size: int,
    stopped: Callable[[], bool],
) -> Activations | None:
    """Computes everything, or gives None where it was `stopped`, which is asked after every `size` rows.

    Args:
        word: [N] int64 vocabulary numbers of the items.
        content: [N, F] at least.
        users: [U] int64 rows, rising. An edge to another user counts as one to a user without a vector yet: zeros.

    Raises:
        torch.OutOfMemoryError: of the device; it needs (2 N + U) * d floats, and what a part takes.
    """
    encoder = copy.deepcopy(encoder).to(device)
    width = encoder.user_root.shape[0]
    base, items = (torch.zeros(len(word), width, device=device) for _ in range(2))
    vectors = torch.zeros(1 + len(users), width, device=device)  # the first stands for users that are not there

    def of_base(rows: Tensor) -> None:
        base[_span(rows)] = encoder.base(word[rows].to(device), content[rows].to(device))

    def of_users(at: Tensor) -> None:
        edges = graph.user_items.latest(users[at], USER_NEIGHBORS)
        vectors[_span(at + 1)] = encoder.users(base, edges.to(device))

    def of_items(rows: Tensor) -> None:
        user_edges, next_edges = edges_of(encoder, graph, rows)
        user_edges = _placed(user_edges, users)
        items[_span(rows)] = encoder.items(
            base[_span(rows)], vectors, user_edges.to(device), base, next_edges.to(device)
        )  # fmt: skip

    asked = len(users) if encoder.linked else 0
    for count, compute in ((len(word), of_base), (asked, of_users), (len(word), of_items)):
        for part in _parts(count, size):
            if stopped():
                return None
            compute(part)
    return Activations(base.to(CPU), vectors[1:].to(CPU), items.to(CPU))


def edges_of(encoder: GraphEncoder, graph: LiveGraph, rows: Tensor) -> tuple[Neighbors, Neighbors]:
    """Users and next items of the items `rows` [B], as far as the encoder reads them."""
    if not encoder.linked:
        return Neighbors.none(len(rows), 1), Neighbors.none(len(rows), 1)
    return graph.item_users.latest(rows), graph.item_next.latest(rows)


def _placed(edges: Neighbors, users: Tensor) -> Neighbors:
    """Edges to rows of users as edges to their places among `users`, from 1, and to 0 where they are not there."""
    if len(users) == 0:
        return replace(edges, row=edges.row.clamp_max(0))
    at = torch.searchsorted(users, edges.row).clamp_max(len(users) - 1)
    place = torch.where(users[at] == edges.row, at + 1, 0)
    return replace(edges, row=torch.where(edges.mask, place, -1))


def _parts(count: int, size: int) -> Iterator[Tensor]:
    return (torch.arange(first, min(count, first + size)) for first in range(0, count, size))


def _span(rows: Tensor) -> slice:
    """Rows that follow each other, for a view in place of a gather."""
    return slice(int(rows[0]), int(rows[-1]) + 1)
