"""The live graph: who touched what, and what came next.

Shapes: E events in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.state.ring import Ring


@dataclass(frozen=True)
class Graph:
    """Three rings over users and items.

    Attributes:
        user_items: user -> items, with the session of each; this ring is the user's history and session.
        item_users: item -> users.
        item_next: item -> items that followed it within a session.
    """

    user_items: Ring
    item_users: Ring
    item_next: Ring

    @classmethod
    def empty(cls, history: int, neighbors: int, device: torch.device | str = "cpu") -> Graph:
        return cls(
            Ring(history, device=device, with_session=True),
            Ring(neighbors, device=device),
            Ring(neighbors, device=device),
        )

    def grow(self, users: int, items: int) -> None:
        self.user_items.grow(users)
        self.item_users.grow(items)
        self.item_next.grow(items)

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
        self.user_items.insert(user, item, time_ms, kind, weight, session)
        self.item_users.insert(item, user, time_ms, kind, weight)
        follows = previous >= 0
        self.item_next.insert(previous[follows], item[follows], time_ms[follows], kind[follows], weight[follows])

    def clone(self) -> Graph:
        """A copy that later events don't touch."""
        return Graph(self.user_items.clone(), self.item_users.clone(), self.item_next.clone())
