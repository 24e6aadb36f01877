"""The relations of several slices, read as one: who a user's friends are, and which items share an entity.

A user or an entity may be named in any slice, so both are found by their ids. Relations of a kind that weighs 0 are
remembered, and not followed here.

Shapes: R rows asked for, n found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.state.merged import Slots
from engine.state.people import People
from engine.state.ring import Neighbors

_NONE = np.zeros(0, dtype=np.int64)


class MergedRelations:
    """Reads `slices` as they are at each call.

    Args:
        weights: of each kind of relation.
    """

    def __init__(self, slices: Slots, people: People, weights: Sequence[float]) -> None:
        self._slices = slices
        self._people = people
        self._weight = np.array(weights, dtype=np.float64)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(len(placed.slice.relations.targets) for placed in self._slices.values())

    def friends(self, subject: str, n: int | None = None) -> Tensor:
        """[n] int64 rows of users that a user is related to, of the default all.

        The strongest come first, by the weight of the kind times the relation's value, and of these the newest. A user
        in several slices has the row of its newest event; who isn't known has none.
        """
        found: dict[str, tuple[float, int]] = {}  # strength, time
        for placed in self._slices.values():
            row = placed.slice.users.get(subject) if len(placed.slice.relations.targets) else None
            if row is None:
                continue
            edges = placed.slice.relations.user_users.latest(torch.tensor([row]))
            rows, time_ms, strength = self._followed(edges)
            for target, at_ms, much in zip(rows.tolist(), time_ms.tolist(), strength.tolist(), strict=True):
                name = placed.slice.relations.targets.id_of(target)
                if name is not None and at_ms >= found.get(name, (0.0, 0))[1]:
                    found.pop(name, None)
                    found[name] = much, at_ms
        ranked = sorted(((*value, place, name) for place, (name, value) in enumerate(found.items())), reverse=True)
        return self._rows_of([name for *_, name in ranked])[:n]

    def items_like(self, rows: Tensor, n: int | None = None) -> Tensor:
        """[n] int64 items, of the default all, that share an entity with any of `rows` [R], the newest relation first.

        The items asked for are not among them.
        """
        named: dict[str, None] = {}
        for placed in self._slices.values():
            relations = placed.slice.relations
            if len(relations.targets) == 0:
                continue
            local = placed.local(rows.numpy())
            targets, _, _ = self._followed(relations.item_entities.latest(torch.from_numpy(local[local >= 0])))
            named.update((name, None) for target in targets.tolist() if (name := relations.targets.id_of(target)))
        keys = sorted(named)  # where times are equal, their order decides
        items, times = [_NONE], [_NONE]
        for placed in self._slices.values() if keys else ():
            relations = placed.slice.relations
            found = relations.targets.find(keys)
            edges = relations.entity_items.latest(torch.from_numpy(found[found >= 0]))
            local_rows, time_ms, _ = self._followed(edges)
            items.append(placed.item_of[local_rows])
            times.append(time_ms)
        item, time_ms = np.concatenate(items)[::-1], np.concatenate(times)[::-1]
        item = item[np.argsort(-time_ms, kind="stable")]
        item = item[~np.isin(item, rows.numpy())]
        _, first = np.unique(item, return_index=True)
        return torch.from_numpy(item[np.sort(first)][:n])

    def _followed(self, edges: Neighbors) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Row, time and strength of all edges that are there and weigh anything, oldest first."""
        row, kind = edges.row.numpy(), edges.kind.numpy()
        strength = self._weight[kind] * edges.weight.numpy()
        there = (row >= 0) & (strength > 0)
        return row[there], edges.time_ms.numpy()[there], strength[there]

    def _rows_of(self, user_ids: Sequence[str]) -> Tensor:
        """Rows of these users, in order, of those that are known."""
        best = self._people.find(user_ids)
        return torch.from_numpy(best[best >= 0])
