"""What a state holds, by ids and in plain Python: two states compare however their rows are numbered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from engine.state.ring import Neighbors, Ring
from engine.state.slice import Slice
from engine.state.state import State

Digest = dict[str, Any]
IdOf = Callable[[int], str | None]


def edges_of(edges: Neighbors, at: int, id_of: IdOf) -> list[tuple]:
    """One node's edges, oldest first: (id, time, kind, weight, session)."""
    columns = [column[at].tolist() for column in edges.columns()]
    return [(id_of(row), *rest) for row, *rest in zip(*columns, strict=True) if row >= 0]


def slice_digest(one: Slice) -> Digest:
    """All of one partition."""
    users = {name: row for row, name in enumerate(one.users.ids()) if name is not None}
    items = {name: row for row, name in enumerate(one.items.ids()) if name is not None}
    relations = one.relations
    targets = {name: row for row, name in enumerate(relations.targets.ids()) if name is not None}

    def ring_of(ring: Ring, nodes: dict[str, int], id_of: IdOf) -> Digest:
        rows = torch.tensor(list(nodes.values()), dtype=torch.int64)
        edges = ring.latest(rows)
        # How many of the last n slots hold an edge tells where a forgotten one left a hole.
        held = torch.stack([ring.latest(rows, n).mask.sum(dim=1) for n in range(1, ring.size + 1)], dim=1).tolist()
        degree = ring.degree.data[rows].tolist()
        return {name: (edges_of(edges, at, id_of), held[at], degree[at]) for at, name in enumerate(nodes)}

    def session_of(row: int) -> tuple:
        ordinal, name, last, time_ms, *links = one.sessions.table.data[row].tolist()
        generation, item = last >> 32, last & 0xFFFF_FFFF
        alive = ordinal > 0 and one.items.generation.data[item] == generation
        return ordinal, name, one.items.id_of(item) if alive else None, time_ms, links

    return {
        "user_items": ring_of(one.graph.user_items, users, one.items.id_of),
        "item_users": ring_of(one.graph.item_users, items, one.users.id_of),
        "item_next": ring_of(one.graph.item_next, items, one.items.id_of),
        "user_users": ring_of(relations.user_users, users, relations.targets.id_of),
        "item_entities": ring_of(relations.item_entities, items, relations.targets.id_of),
        "entity_items": ring_of(relations.entity_items, targets, one.items.id_of),
        "targets_seen": {name: int(relations.targets.seen.data[row]) for name, row in targets.items()},
        "sessions": {name: session_of(row) for name, row in users.items()},
        "session_users": {name: held for name, *held in one.session_users.table.data.tolist() if held[0] > 0},
        "users_seen": {name: int(one.users.seen.data[row]) for name, row in users.items()},
        "items_seen": {name: int(one.items.seen.data[row]) for name, row in items.items()},
        "popularity": {name: one.popularity.table.data[row].numpy().tobytes() for name, row in items.items()},
        "contributions": contributions_of(one),
        "landmark": one.popularity.landmarks.tolist(),
        "recent_ids": one.recent_ids.ordered(),
        "anonymous": {name: one.users.id_of(row) for name, row in one.anonymous.items()},
        "numbers": [one.position, one.events_folded, one.duplicates, one.forgotten],
        "evicted": [one.evicted_users, one.evicted_items, one.evicted_targets],
    }


def contributions_of(one: Slice) -> Digest:
    """What users have added to items that they came back to."""
    pairs, sums = one.contributions.table.data, one.contributions.sums.data
    return {
        (one.users.id_of((pair >> 32) - 1), one.items.id_of(pair & 0xFFFF_FFFF)): (*rest, sums[row].numpy().tobytes())
        for row, (_, pair, *rest) in enumerate(pairs[: one.contributions.rows].tolist())
        if pair != 0
    }


def catalog_digest(state: State) -> Digest:
    """What the catalog's records say, and what may be shown, by item id."""
    known = {name: row for row, name in enumerate(state.items.ids()) if name}
    at = np.array(list(known.values()), dtype=np.int64)
    return {
        # Where a record is in its topic says how long ago its item was updated.
        "records": sorted((one.item_id, one.offset, one.partition, repr(one)) for one in state.catalog.records()),
        "used": sorted(one.item_id for one in state.catalog.records()[: state.records.used]),
        "deleted": dict(zip(known, state.catalog.deleted(at).tolist(), strict=True)),
    }


def merged_digest(state: State, subjects: Sequence[str]) -> Digest:
    """What is read of all partitions together, by ids."""
    owner = {
        placed.first_user + row: name
        for placed in state.slices.values()
        for row, name in enumerate(placed.slice.users.ids())
    }
    known = {name: row for row, name in enumerate(state.items.ids()) if name}
    items = torch.tensor(list(known.values()), dtype=torch.int64)
    users, follows = state.graph.item_users.latest(items), state.graph.item_next.latest(items)
    rows = dict(zip(subjects, state.find_users(subjects), strict=True))
    histories = {
        subject: edges_of(state.histories([row]), 0, state.items.id_of) for subject, row in rows.items() if row >= 0
    }
    friends = {subject: [owner[row] for row in state.relations.friends(subject).tolist()] for subject in rows}
    alike = {
        name: [state.items.id_of(row) for row in state.relations.items_like(torch.tensor([at]), 99).tolist()]
        for name, at in known.items()
    }
    scores = {name: float(state.popularity.score[row]) for name, row in known.items()}
    top = state.popularity.top().tolist()
    return {
        "item_users": {name: edges_of(users, at, owner.__getitem__) for at, name in enumerate(known)},
        "item_next": {name: edges_of(follows, at, state.items.id_of) for at, name in enumerate(known)},
        "histories": histories,
        "friends": friends,
        "alike": alike,
        "scores": scores,
        "top": sorted(state.items.id_of(row) for row in top),
        "top_scores": [float(state.popularity.score[row]) for row in top],
    }


def state_digest(state: State, subjects: Sequence[str]) -> Digest:
    """Everything: each partition, the catalog, and what is read of them together."""
    return {
        "slices": {partition: slice_digest(placed.slice) for partition, placed in state.slices.items()},
        "catalog": catalog_digest(state),
        "merged": merged_digest(state, subjects),
        "positions": state.positions,
    }
