"""The live graph: who touched what, and what came next.

Shapes: E events in a batch, B nodes asked for, n of their edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.state.ring import Neighbors, Ring, edge_words
from engine.state.table import Table


class Edges(Protocol):
    """Edges to be read: a `Ring`, or several seen as one."""

    @property
    def size(self) -> int:
        """Edges kept per node."""

    def rooms(self) -> NDArray[np.int64]:
        """Where the edges lie, as `latest_of_slices` takes it. It holds for as long as nothing else is done."""

    def latest(self, rows: Tensor, n: int | None = None) -> Neighbors:
        """The newest n (default: all that are kept) edges of `rows` [B], oldest first, padded on the left."""

    def naming(self, rows: Tensor) -> Tensor:
        """[R] int64 the nodes with an edge to any of `rows`."""


class LiveGraph(Protocol):
    """The edges that the model reads.

    Attributes:
        user_items: user -> items, with the session of each; these are the user's history.
        item_users: item -> users.
        item_next: item -> items that followed it within a session.
    """

    @property
    def user_items(self) -> Edges: ...

    @property
    def item_users(self) -> Edges: ...

    @property
    def item_next(self) -> Edges: ...


@dataclass(frozen=True)
class Graph:
    """A `LiveGraph` of three rings, to be written."""

    user_items: Ring
    item_users: Ring
    item_next: Ring

    @classmethod
    def empty(
        cls,
        history: int,
        neighbors: int,
        users: int,
        items: int,
        *,
        users_generation: Table | None = None,
        items_generation: Table | None = None,
    ) -> Graph:
        """Room for `users` and `items`; generations as a `Ring` takes them."""
        return cls(
            Ring(users, history, generation=items_generation),
            Ring(items, neighbors, generation=users_generation),
            Ring(items, neighbors, generation=items_generation),
        )

    def insert(
        self,
        user: Tensor,
        item: Tensor,
        previous: Tensor,
        time_ms: Tensor,
        kind: Tensor,
        weight: Tensor,
        session: Tensor,
    ) -> None:
        """Appends E events, oldest first; `previous` is -1 where an event starts its session."""
        self.user_items.append(user, item, edge_words(time_ms, kind, weight, session))
        words = edge_words(time_ms, kind, weight)
        self.item_users.append(item, user, words)
        self.item_next.append(previous, item, words)
