"""The activations of the graph encoder for every user and item, refreshed row by row.

An event (user, item, previous item) changes three things at once: the user's vector, and the embeddings of the two
items, whose rings it entered. They are recomputed in the step that folds the event. A user's vector also enters the
embeddings of all items whose rings name the user; those follow in later steps, a few at a time, and only once the
vector has moved by more than epsilon since it last spread. They are found by one scan of the rings for all users that
moved, made whenever the items of the last scan are done: its cost is spread over many steps.

Shapes: N items, U users, R rows to refresh, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from engine.config import InferenceConfig
from engine.inference.dirty import DirtyRows
from engine.model.gnn import USER_NEIGHBORS
from engine.model.recommender import Recommender
from engine.state.graph import Graph
from engine.state.state import Folded


class Embedder:
    """Cached activations of one model.

    Attributes:
        items: [N, d] layer 2, the normalised item embeddings.
        base: [N, d] layer 0 of the items.
        users: [U, d] layer 1.
    """

    def __init__(self, model: Recommender, vocabulary: Sequence[str], config: InferenceConfig) -> None:
        dim = model.shape.dim
        self._model = model.graph
        self._config = config
        self._number: Mapping[str, int] = {name: number for number, name in enumerate(vocabulary, start=1)}
        self.items, self.base, self.users = torch.zeros(0, dim), torch.zeros(0, dim), torch.zeros(0, dim)
        self._spread = torch.zeros(0, dim)  # [U, d] each user's vector when its items last followed
        self._embedded = 0  # items with a row in the tables
        self._moved = DirtyRows()  # users whose items are still to be found
        self._waiting = DirtyRows()  # items to recompute because a neighbor moved

    @property
    def backlog(self) -> int:
        """Users and items that still have to spread or to follow."""
        return len(self._moved) + len(self._waiting)

    @torch.inference_mode()
    def build(
        self,
        graph: Graph,
        item_ids: Sequence[str],
        content: Tensor,
        users: int,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Computes everything anew for the first `users` users and all of `item_ids`, or until `stopped`."""
        self._grow(len(item_ids), users)
        self._refresh_base(torch.arange(len(item_ids)), item_ids, content)
        self._refresh_users(graph, torch.arange(users))
        self._spread = self.users.clone()
        for part in torch.arange(len(item_ids)).split(self._config.chunk_rows):
            if stopped():
                return
            self._refresh_items(graph, part)
        self._embedded = len(item_ids)

    @torch.inference_mode()
    def refresh(self, graph: Graph, item_ids: Sequence[str], content: Tensor, users: int, folded: Folded) -> Tensor:
        """Follows one folded batch: what it touched itself is recomputed now, what lies behind is left to `spread`.

        Returns:
            [R] int64 items whose embeddings were recomputed, each once.
        """
        self._grow(len(item_ids), users)
        new = torch.arange(self._embedded, len(item_ids))
        self._embedded = len(item_ids)
        rebased = torch.cat([new, folded.catalog]).unique()
        readers = self._rebase(graph, rebased, item_ids, content)
        self._follow(graph, torch.cat([readers, folded.user]).unique())
        previous = folded.previous[folded.previous >= 0]
        touched = torch.cat([rebased, folded.item, previous]).unique()
        self._waiting.discard(touched)
        self._refresh_items(graph, touched)
        return touched

    @torch.inference_mode()
    def spread(self, graph: Graph) -> Tensor:
        """Recomputes up to `spread_rows` items that a neighbor's move has reached; returns them, [R] int64."""
        if self._moved and not self._waiting:
            moved = self._moved.take(len(self._moved))
            self._waiting.add(_rows_with(graph.item_users.neighbor, moved, len(self.users)))
        rows = self._waiting.take(self._config.spread_rows)
        self._refresh_items(graph, rows)
        return rows

    def _rebase(self, graph: Graph, rows: Tensor, item_ids: Sequence[str], content: Tensor) -> Tensor:
        """Recomputes layer 0 of `rows`; queues the items that read it, and returns the users that do.

        A changed catalog record is rare, so its readers are found by a scan of the rings.
        """
        before = self.base[rows]
        self._refresh_base(rows, item_ids, content)
        changed = rows[(self.base[rows] != before).any(dim=1)]
        known = changed[graph.item_users.degree[changed] > 0]  # a new item has no readers
        if len(known) == 0:
            return known
        self._waiting.add(_rows_with(graph.item_next.neighbor, known, len(item_ids)))
        return _rows_with(graph.user_items.neighbor, known, len(item_ids))

    def _follow(self, graph: Graph, users: Tensor) -> None:
        """Recomputes `users` and notes those that moved far enough."""
        if len(users) == 0:
            return
        self._refresh_users(graph, users)
        moved = users[(self.users[users] - self._spread[users]).norm(dim=-1) > self._config.epsilon]
        if len(moved):
            self._spread[moved] = self.users[moved]
            self._moved.add(moved)

    def _refresh_base(self, rows: Tensor, item_ids: Sequence[str], content: Tensor) -> None:
        for part in rows.split(self._config.chunk_rows):
            word = torch.tensor([self._number.get(item_ids[row], 0) for row in part.tolist()], dtype=torch.int64)
            self.base[part] = self._model.base(word, content[part])

    def _refresh_users(self, graph: Graph, rows: Tensor) -> None:
        for part in rows.split(self._config.chunk_rows):
            self.users[part] = self._model.users(self.base, graph.user_items.latest(part, USER_NEIGHBORS))

    def _refresh_items(self, graph: Graph, rows: Tensor) -> None:
        for part in rows.split(self._config.chunk_rows):
            self.items[part] = self._model.items(
                self.base[part], self.users, graph.item_users.latest(part), self.base, graph.item_next.latest(part)
            )

    def _grow(self, items: int, users: int) -> None:
        self.items, self.base = _grown(self.items, items), _grown(self.base, items)
        self.users, self._spread = _grown(self.users, users), _grown(self._spread, users)


def _rows_with(neighbor: Tensor, wanted: Tensor, nodes: int) -> Tensor:
    """[R] the rows of `neighbor` [N, K] that name any of the `wanted` among `nodes` nodes."""
    mark = torch.zeros(nodes + 1, dtype=torch.bool)  # the last place is that of -1, an empty slot
    mark[wanted] = True
    return mark[neighbor.to(torch.int64)].any(dim=1).nonzero().squeeze(1)


def _grown(table: Tensor, rows: int) -> Tensor:
    """`table` with room for `rows`; doubles, so that a new row costs O(1)."""
    if rows <= len(table):
        return table
    return torch.cat([table, table.new_zeros(max(rows, 2 * len(table)) - len(table), table.shape[1])])
