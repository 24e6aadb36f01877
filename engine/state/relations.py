"""Who follows whom, and what items have: relations that hold until they end, or until newer ones take their place.

    user_users    user -> target users
    item_entities item -> entities
    entity_items  entity -> items

Targets have rows of their own: the other user's events may lie in another partition, and an entity has none.

Shapes: E events, R rows, N nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import StateConfig
from engine.events.batch import EventBatch
from engine.state.nodes import Nodes
from engine.state.ring import Ring, edge_words
from engine.state.table import Table

Rows = NDArray[np.int64]

_ENTITY_MARK = "\x01"  # no id has control characters, and those of sessions begin with another


def entity_key(entity_id: str) -> str:
    """The key of an entity among the targets; a user's is its id."""
    return _ENTITY_MARK + entity_id


def target_keys(events: EventBatch) -> list[str]:
    """[E] key of the target of each event, "" where it is no relation."""
    return [
        entity_key(target_id) if target_id and item_id else target_id
        for target_id, item_id in zip(events.target_id, events.item_id, strict=True)
    ]


@dataclass(frozen=True)
class Mentions:
    """The nodes of one sort that E events name.

    Attributes:
        ids: [E] "" where an event names none.
        rows: [E] -1 where a node is not known, or none is named.
        given: [E] bool, whether an event makes what it names known; the end of a relation doesn't.
    """

    nodes: Nodes
    ids: Sequence[str]
    rows: Rows
    given: NDArray[np.bool_]

    @classmethod
    def of(cls, nodes: Nodes, ids: Sequence[str], ends: NDArray[np.bool_]) -> Mentions:
        named = np.array([name != "" for name in ids], dtype=np.bool_)
        return cls(nodes, ids, nodes.find(ids), named & ~ends)

    def room(self) -> int:
        """How many events from the first on have rows, or can get them."""
        free, new = self.nodes.limit - len(self.nodes), set()
        lacking = np.flatnonzero(self.given & (self.rows < 0)).tolist()
        if len(lacking) > free:
            for at in lacking:
                new.add(self.ids[at])
                if len(new) > free:
                    return at
        return len(self.ids)

    def add(self, count: int) -> list[int]:
        """Gives rows to what the first `count` events name; completes `rows`, and returns those given."""
        at = np.flatnonzero(self.given[:count])
        rows = self.rows[at]
        new = self.nodes.add([self.ids[place] for place in at.tolist()], rows)
        self.rows[at] = rows
        # What ends here may have been made known just before.
        late = np.flatnonzero(~self.given[:count] & (self.rows[:count] < 0))
        if new and len(late):
            self.rows[late] = self.nodes.find([self.ids[place] for place in late.tolist()])
        return new

    def see(self, offset: Tensor) -> None:
        """Notes what the first events name; `offset` [count] 1 + that of each."""
        at = np.flatnonzero(self.rows[: len(offset)] >= 0)
        self.nodes.see(torch.from_numpy(self.rows[at]), offset[torch.from_numpy(at)])


class Relations:
    """The relations of one slice.

    Args:
        users, items: the nodes that have them.

    Attributes:
        targets: users by id, entities by entity_key; those named by no event for longest make room.
        user_users, item_entities, entity_items: edges of a node, each neighbor once, that last named last.
    """

    def __init__(self, config: StateConfig, users: Nodes, items: Nodes) -> None:
        self.targets = Nodes(config.max_targets)
        known = self.targets.generation
        self.user_users = Ring(users.limit, config.relations, generation=known)
        self.item_entities = Ring(items.limit, config.relations, generation=known)
        self.entity_items = Ring(config.max_targets, config.relations, generation=items.generation)
        self._users, self._items = users, items

    def rings(self) -> dict[str, tuple[Ring, int]]:
        """Every ring by name, with how many of its nodes are in use."""
        return {
            "user_users": (self.user_users, self._users.rows),
            "item_entities": (self.item_entities, self._items.rows),
            "entity_items": (self.entity_items, self.targets.rows),
        }

    def tables(self) -> dict[str, tuple[Table, int]]:
        """Every table but those of the rings, with how many of its rows matter."""
        rows = self.targets.rows
        return {"targets.generation": (self.targets.generation, rows), "targets.seen": (self.targets.seen, rows)}

    def fold(self, events: EventBatch, user: Rows, item: Rows, target: Rows) -> None:
        """Folds E relations in log order, given their rows; -1 where there is none."""
        social, knows = (user >= 0) & (target >= 0), (item >= 0) & (target >= 0)
        self._renew(self.user_users, user, target, events, social)
        self._renew(self.item_entities, item, target, events, knows)
        self._renew(self.entity_items, target, item, events, knows)

    def evict(self) -> Tensor:
        """Takes back the rows of the targets idle for longest; returns them."""
        rows = self.targets.longest_idle()
        self._remove(rows)
        return rows

    def forget(self, user_id: str) -> bool:
        """Removes a user as a target, from whoever is related to it; False where it is none."""
        row = self.targets.get(user_id) if user_id else None
        if row is None:
            return False
        self.user_users.scrub(row)
        self._remove(torch.tensor([row]))
        return True

    def _remove(self, rows: Tensor) -> None:
        self.entity_items.clear(rows)
        self.targets.remove(rows)

    def _renew(self, ring: Ring, src: Rows, dst: Rows, events: EventBatch, where: NDArray[np.bool_]) -> None:
        """Makes src -> dst the newest edge of its node, or removes it where it ends, for each event that is asked for.

        Nodes are read once, changed event by event, and written once: what a batch leaves behind is what its events
        one by one would.
        """
        at = np.flatnonzero(where)
        if len(at) == 0:
            return
        nodes = torch.from_numpy(np.unique(src[at]))
        held = _edges_of(ring, nodes)
        said = zip(
            *(column[at].tolist() for column in (src, dst, events.ends, events.time_ms, events.kind, events.value)),
            strict=True,
        )
        for node, neighbor, ends, *edge in said:
            edges = held[node]
            edges.pop(neighbor, None)
            if not ends:
                edges[neighbor] = edge
                if len(edges) > ring.size:
                    del edges[next(iter(edges))]
        ring.clear(nodes)
        rows = [(node, neighbor, *edge) for node, edges in held.items() for neighbor, edge in edges.items()]
        if rows:
            *numbers, weight = zip(*rows, strict=True)
            source, to, time_ms, kind = torch.tensor(numbers, dtype=torch.int64).contiguous()
            words = edge_words(time_ms, kind, torch.tensor(weight, dtype=torch.float32))
            ring.append(source, to, words)


def _edges_of(ring: Ring, nodes: Tensor) -> dict[int, dict[int, list[float]]]:
    """Of each node its edges, oldest first: neighbor -> time in ms, kind, weight."""
    held: dict[int, dict[int, list[float]]] = {node: {} for node in nodes.tolist()}
    edges = ring.latest(nodes)
    there = edges.mask.nonzero()
    if len(there):
        node = nodes[there[:, 0]].tolist()
        columns = (column[there[:, 0], there[:, 1]].tolist() for column in edges.columns()[:4])
        for source, neighbor, *edge in zip(node, *columns, strict=True):
            held[source][neighbor] = edge
    return held
