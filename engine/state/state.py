"""The whole state, and the fold that advances it by one decoded batch.

Shapes: E events in a batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.config import EventsConfig, StateConfig
from engine.events.batch import Decoded, EventBatch
from engine.state.catalog import Catalog
from engine.state.graph import Graph
from engine.state.id_map import IdMap
from engine.state.popularity import Popularity
from engine.state.sessions import Sessions


@dataclass(frozen=True)
class Folded:
    """What a batch changed.

    Attributes:
        user: [E] int64 row of each event's user or anonymous session.
        item: [E] int64 row of each event's item.
        previous: [E] int64 item before it in its session, -1 at a start.
        session: [E] int32 the user's session ordinal.
        catalog: [C] int64 items whose catalog record changed.
    """

    user: Tensor
    item: Tensor
    previous: Tensor
    session: Tensor
    catalog: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Folded]) -> Folded:
        """Several batches as one."""
        return cls(
            torch.cat([part.user for part in parts]),
            torch.cat([part.item for part in parts]),
            torch.cat([part.previous for part in parts]),
            torch.cat([part.session for part in parts]),
            torch.cat([part.catalog for part in parts]).unique(),
        )


class State:
    """A pure function of the log: the same records in the same order give the same state, however batched."""

    def __init__(self, config: StateConfig, events: EventsConfig, device: torch.device | str = "cpu") -> None:
        self.users = IdMap()  # by subject_key
        self.items = IdMap()
        self.graph = Graph.empty(config.history, config.neighbors, device)
        self.sessions = Sessions(config.session_gap_s, device=device)
        self.popularity = Popularity(config.half_life_s, config.popular)
        self.catalog = Catalog(config.content_dim, config.features_dim)
        self.positions: dict[tuple[str, int], int] = {}  # (topic, partition) -> next offset to fold
        self.events_folded = 0
        self.items_folded = 0
        self._kind_weight = np.array(list(events.kinds.values()), dtype=np.float64)
        self._device = torch.device(device)

    def fold(self, batch: Decoded) -> Folded:
        """Folds one batch: first its catalog records, then its events; then its positions are reflected."""
        catalog = self._fold_items(batch)
        folded = self._fold_events(batch.events, catalog)
        self.positions.update(batch.positions)
        return folded

    def _fold_items(self, batch: Decoded) -> Tensor:
        """Returns the rows that changed, each once."""
        if not batch.items:
            return torch.zeros(0, dtype=torch.int64)
        rows = self.items.add(item.item_id for item in batch.items)
        self._grow()
        self.catalog.fold(rows.tolist(), batch.items)
        self.items_folded += len(batch.items)
        changed = rows.unique()
        deleted = self.catalog.deleted(changed.numpy())
        if (deleted != self.popularity.hidden(changed.numpy())).any():
            self.popularity.hide(changed.numpy(), deleted)
        return changed

    def _fold_events(self, events: EventBatch, catalog: Tensor) -> Folded:
        user = self.users.add(map(subject_key, events.user_id, events.session_id))
        item = self.items.add(events.item_id)
        self._grow()
        time_ms = torch.from_numpy(events.time_ms)
        name = torch.tensor([_session_name(session) for session in events.session_id], dtype=torch.int64)
        device = self._device
        sessioned = self.sessions.fold(user.to(device), name.to(device), item.to(device), time_ms.to(device))
        self.graph.insert(
            user.to(device),
            item.to(device),
            sessioned.previous,
            time_ms.to(device),
            torch.from_numpy(events.kind).to(device),
            torch.from_numpy(events.value).to(device),
            sessioned.ordinal,
        )
        self.popularity.fold(item.numpy(), events.time_ms, self._kind_weight[events.kind])
        self.events_folded += len(events)
        return Folded(user, item, sessioned.previous.cpu(), sessioned.ordinal.cpu(), catalog)

    def _grow(self) -> None:
        users, items = len(self.users), len(self.items)
        self.graph.grow(users, items)
        self.sessions.grow(users)
        self.popularity.grow(items)
        self.catalog.grow(items)


def subject_key(user_id: str, session_id: str) -> str:
    """The one key of a user or, without one, of an anonymous session; the two never collide."""
    return f"u:{user_id}" if user_id else f"s:{session_id}"


def _session_name(session_id: str) -> int:
    # 32 bits suffice: a name is only compared with the one just before it.
    return zlib.crc32(session_id.encode()) if session_id else -1
