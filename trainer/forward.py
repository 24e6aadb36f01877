"""Item embeddings of just the rows that are asked for, from the same layers and rings that the engine serves from.

Shapes: N items, B rows, d width, F content features.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.model.gnn import USER_NEIGHBORS, GraphEncoder
from engine.model.recommender import Recommender
from engine.state.graph import LiveGraph
from engine.state.ring import Neighbors

# Numbers of a table of items. Whatever touches all of a larger one takes longer than all else in a step of the
# training, or in a list.
LARGE_TABLE = 2**23


@dataclass(frozen=True)
class Dropped:
    """What is hidden in training: learned ids and neighbors, each with its probability."""

    ids: float
    edges: float
    generator: torch.Generator

    def hide_ids(self, word: Tensor) -> Tensor:
        return word.masked_fill(torch.rand(len(word), generator=self.generator) < self.ids, 0)

    def hide_edges(self, edges: Neighbors) -> Neighbors:
        hidden = torch.rand(len(edges), 1, generator=self.generator) < self.edges
        return replace(edges, row=edges.row.masked_fill(hidden, -1))


class ItemForward:
    """Computes embeddings [B, d] of any rows, as of a graph, on the device that the model is on.

    Rows, graph, words and content lie in a CPU's memory; what a call needs of them is sent along.

    Args:
        word: [N] int64 vocabulary numbers, 0 where training has not seen the item.
        content: [N, F].
    """

    def __init__(self, model: Recommender, word: Tensor, content: Tensor) -> None:
        self.model = model
        self._word = word
        self._content = content
        self._place = torch.zeros(len(word), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._word)

    @property
    def device(self) -> torch.device:
        return self.model.log_temperature.device

    def __call__(self, rows: Tensor, graph: LiveGraph | None, dropped: Dropped | None = None) -> Tensor:
        """[B, d] normalised embeddings of distinct `rows` [B]; without a graph, as if no item had neighbors."""
        encoder = self.model.graph
        if graph is None or not encoder.linked:
            return _alone(encoder, self._base(rows, dropped))
        user_edges, next_edges = graph.item_users.latest(rows), graph.item_next.latest(rows)
        if dropped is not None:
            user_edges, next_edges = dropped.hide_edges(user_edges), dropped.hide_edges(next_edges)
        users = user_edges.row[user_edges.mask].unique()
        history = graph.user_items.latest(users, USER_NEIGHBORS)
        needed = torch.cat([rows, next_edges.row.flatten(), history.row.flatten()]).clamp_min(0).unique()
        device, place = self.device, self._place
        place[needed] = torch.arange(len(needed))

        def remapped(edges: Neighbors) -> Neighbors:
            return replace(edges, row=torch.where(edges.mask, place[edges.row.clamp_min(0)], -1)).to(device)

        base = self._base(needed, dropped)
        # Attention needs a table of at least one row, though no edge points into it.
        user_vectors = encoder.users(base, remapped(history)) if len(users) else base[:1]
        at_user = torch.searchsorted(users, user_edges.row)
        user_edges = replace(user_edges, row=torch.where(user_edges.mask, at_user, -1)).to(device)
        return encoder.items(base[place[rows].to(device)], user_vectors, user_edges, base, remapped(next_edges))

    def known(self) -> Tensor:
        """[N] whether anything tells an item from others."""
        return self.model.graph.knows(self._word, self._content)

    def habit(self, rows: Tensor) -> Tensor:
        """[..., HABITS] what the model knows of how items are had again."""
        return self.model.habit[self._word[rows]]

    def table(self, graph: LiveGraph | None, rows_at_once: int = 1024) -> Tensor:
        """[N, d] embeddings of every item.

        Args:
            rows_at_once: four times as many take the same time, and 1.4 GB instead of 0.4 where each item has its most
                neighbors.
        """
        rows = torch.arange(len(self._word))
        return torch.cat([self(part, graph) for part in rows.split(rows_at_once)])

    def unknown(self) -> Tensor:
        """[1, d] embedding of an item of which nothing is known: no learned id, no content, no neighbors."""
        encoder = self.model.graph
        word, content = torch.zeros(1, dtype=torch.int64), torch.zeros(1, self._content.shape[1])
        return _alone(encoder, encoder.base(word.to(self.device), content.to(self.device)))

    def _base(self, rows: Tensor, dropped: Dropped | None) -> Tensor:
        word = self._word[rows]
        word = word if dropped is None else dropped.hide_ids(word)
        return self.model.graph.base(word.to(self.device), self._content[rows].to(self.device))


def queries(model: Recommender, table: Tensor, events: Neighbors, kind: Tensor) -> list[Tensor]:
    """What the loss is the mean over: queries [B, L, d] without a goal and, where there are goals, with the one met.

    Args:
        table: [M, d]; `events.row` [B, L] points into it.
        kind: [B, L] int64 of the target's event.
    """
    states = model.sequence.states(table, events)
    goals: list[Tensor | None] = [None, kind] if model.shape.by_kind else [None]
    return [model.sequence.query(states, goal) for goal in goals]


def in_half(device: torch.device, half: bool) -> AbstractContextManager[object]:
    """Within it what is computed on the device is so in bfloat16, where that is wanted."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext()


def _alone(encoder: GraphEncoder, target: Tensor) -> Tensor:
    """[B, d] embeddings of items without neighbors, from their layer 0."""
    nothing = _no_edges(len(target)).to(target.device)
    return encoder.items(target, target[:1], nothing, target[:1], nothing)


def _no_edges(rows: int) -> Neighbors:
    none = torch.zeros(rows, 1, dtype=torch.int64)
    return Neighbors(none - 1, none, none, none.float(), none.int())
